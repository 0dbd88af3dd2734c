"""The experiment: configuration, plan, run, store, model, data, training and the command."""
