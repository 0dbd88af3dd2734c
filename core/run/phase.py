"""What a phase component is: defaults for its section of the experiment, scaled by the dial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Phase(Protocol):
    """A phase component, built as ``target(config)``.

    ``recipe`` returns a mapping shaped like ``PhaseSection``: objective, data, trainable set, schedule, losses,
    entry and completion criteria. The experiment's own keys are merged over it, so every default can be changed.
    ``derived`` holds what the size dial gives (``hidden_size``, ``learning_rate``, ``rows``, …).
    """

    def recipe(self, derived: Mapping[str, Any]) -> Mapping[str, Any]: ...
