"""Plan, phase loop, transition protocol, stage store and fingerprints."""
