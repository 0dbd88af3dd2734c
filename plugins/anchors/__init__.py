"""Built-in safety anchors."""
