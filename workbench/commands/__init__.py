"""The subcommands of `workbench`: one module each, and what they share in printing."""
