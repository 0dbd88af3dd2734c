"""Studies: many runs over one store, chosen by Optuna or listed, and what they show together."""
