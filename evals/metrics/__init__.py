"""Metrics of confidence and abstention as modules of the ``evaluate`` library, used by class and offline."""
