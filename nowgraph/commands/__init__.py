"""One module for each subcommand of ``nowgraph``."""
