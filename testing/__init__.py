"""The kit for plugin authors: conformance checks of components, and fixtures that a pytest plugin brings."""

from .checks import Example
from .conformance import conformance

__all__ = ["Example", "conformance"]
