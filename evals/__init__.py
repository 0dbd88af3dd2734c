"""Measuring a model: the lm-eval bridge, task packs, intervals, criteria and verdicts. Knows nothing of phases."""
