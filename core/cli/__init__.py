"""The command, one small module per subcommand; heavy imports stay inside the subcommands."""
