"""Effect proofs: what an experiment's configuration does, shown on a few small steps before money is spent."""
