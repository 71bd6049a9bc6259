"""The command line of scoring."""
