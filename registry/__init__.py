"""What a plugin is: component specs, hooks, discovery, resolution, errors, provenance. Imports no torch."""
