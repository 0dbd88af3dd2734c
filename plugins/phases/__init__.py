"""Built-in phases."""
