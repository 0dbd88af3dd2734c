"""The experiment file: its schema, loading, overrides, presets and errors."""
