"""What of a model trains: patterns by role, parameter name or expert slice; learning-rate scales and weight decay."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...registry.errors import ConfigError
from ..config.roles import ROLES, TRUNK
from ..model.parameters import expert_parameters, roles_of

_SLICE = re.compile(r"experts\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]")
_NOT_TRUNK = {"experts", "probes", "router"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainable:
    """What ``freeze`` did to a model, and how to undo it."""

    flags: Mapping[str, bool]  # requires_grad before
    sliced: frozenset[str]  # parameters of which a slice is frozen: no weight decay, or it would move
    handles: tuple[RemovableHandle, ...]
    model: nn.Module

    def restore(self) -> None:
        """Give every parameter back the ``requires_grad`` it had, and take the gradient masks off."""
        for handle in self.handles:
            handle.remove()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.flags[name])


def matching(model: nn.Module, pattern: str, roles: Mapping[str, str]) -> frozenset[str]:
    """Names of the parameters that a pattern means: a role, ``trunk`` (all but experts, router and probes), or an
    ``fnmatch`` pattern over parameter names. A role that the model has no parameter of matches nothing.

    Raises ``ConfigError`` for a pattern that is no role and matches no name.
    """
    if pattern == TRUNK:
        return frozenset(name for name, role in roles.items() if role not in _NOT_TRUNK)
    if pattern in ROLES:
        return frozenset(name for name, role in roles.items() if role == pattern)
    names = frozenset(name for name in roles if fnmatchcase(name, pattern))
    if not names:
        known = (TRUNK, *ROLES, *roles)
        near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"use a role ({', '.join(sorted(('trunk', *ROLES)))})"
        raise ConfigError(f"the pattern '{pattern}' matches no role and no parameter of {type(model).__name__}; {hint}")
    return names


def freeze(model: nn.Module, patterns: Iterable[str]) -> Trainable:
    """Freeze what the patterns mean, and nothing else: every other parameter keeps its ``requires_grad``.

    ``experts[0-7]`` (also ``experts[0,2,5-7]``) freezes a slice of the stacked experts by a gradient mask; with no
    weight decay on that parameter and a zero first moment, AdamW then leaves the slice's bits as they are.
    Raises ``ConfigError`` for an unknown pattern, for experts the model does not have, or if nothing is left to train.
    """
    roles, flags = roles_of(model), {n: p.requires_grad for n, p in model.named_parameters()}
    handles: list[RemovableHandle] = []
    frozen: set[str] = set()
    slices: set[int] = set()
    for pattern in patterns:
        parsed = _SLICE.fullmatch(pattern)
        if parsed:
            slices |= set(_experts(parsed.group(1)))
        else:
            frozen |= matching(model, pattern, roles)
    stacked = expert_parameters(model) if slices else []
    parameters = dict(model.named_parameters())
    if slices:
        experts = {parameters[name].shape[0] for name in stacked}
        if not stacked or max(slices) >= min(experts):
            raise ConfigError(
                f"freeze names expert {max(slices)}, but {type(model).__name__} has "
                f"{f'experts 0 to {min(experts) - 1}' if stacked else 'no stacked experts'}; change the slice"
            )
        if len(slices) == min(experts):
            frozen |= set(stacked)
    sliced = frozenset(name for name in stacked if name not in frozen and flags[name])
    trains = [name for name, flag in flags.items() if flag and name not in frozen]
    if not trains:
        raise ConfigError(f"freeze leaves nothing of {type(model).__name__} to train; remove a pattern")
    for name in frozen:
        parameters[name].requires_grad_(False)
    for name in sorted(sliced):
        mask = _Mask(parameters[name], sorted(slices))
        handles.append(parameters[name].register_hook(mask))  # type: ignore[no-untyped-call]
    return Trainable(flags=flags, sliced=sliced, handles=tuple(handles), model=model)


def parameter_groups(
    model: nn.Module,
    trainable: Trainable,
    scales: Mapping[str, float],
    decayed: Sequence[str],
    rate: float,
    decay: float,
) -> list[dict[str, object]]:
    """Optimiser groups by (learning-rate scale, weight decay), the group at scale 1 first, so that the logged
    learning rate is the plain one.

    ``scales`` maps patterns (see ``matching``) to factors; a later pattern wins. Exempt from weight decay: what is not
    in ``decayed``, norms, sliced parameters, and what a module lists in its attribute ``no_weight_decay``.
    """
    roles = roles_of(model)
    scale_of = dict.fromkeys(roles, 1.0)
    for pattern, scale in scales.items():
        scale_of |= dict.fromkeys(matching(model, pattern, roles), float(scale))
    exempt = set(trainable.sliced) | {name for name, role in roles.items() if role == "norm"}
    for prefix, module in model.named_modules():
        exempt |= {f"{prefix}.{name}" if prefix else name for name in getattr(module, "no_weight_decay", ())}
    allowed = set(decayed) - exempt
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scale_of[name], name in allowed), []).append(parameter)
    return [
        {"params": members, "lr": rate * scale, "weight_decay": decay if decays else 0.0}
        for (scale, decays), members in sorted(groups.items(), key=lambda item: (item[0][0] != 1.0, item[0]))
    ]


def _experts(text: str) -> Iterable[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class _Mask:
    """A gradient hook that zeroes the rows of frozen experts."""

    def __init__(self, parameter: nn.Parameter, experts: Sequence[int]) -> None:
        keep = torch.ones(parameter.shape[0], dtype=torch.bool)
        keep[list(experts)] = False
        self.keep = keep.view(-1, *[1] * (parameter.ndim - 1))

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.keep.device != gradient.device:
            self.keep = self.keep.to(gradient.device)
        # Not a product: 0 * inf would be NaN and the clipped norm with it.
        return torch.where(self.keep, gradient, 0.0)
