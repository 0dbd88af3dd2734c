"""The author's commands: a new plugin package, and the check of an installed one."""
