"""The command line, and what a run leaves behind."""
