"""A router that hashes hidden states, and a gate for what a hash is good at: even load, and one place for one token."""
