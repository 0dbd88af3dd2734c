"""The embedded microworld: a generator of a small closed world with known ground truth."""

from .source import Microworld, MicroworldConfig

__all__ = ["Microworld", "MicroworldConfig"]
