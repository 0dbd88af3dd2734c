"""Built-in token mixers."""
