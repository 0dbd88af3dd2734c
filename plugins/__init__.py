"""The built-in components, registered exactly like third-party ones."""
