"""The training loop, runs, and a file per network."""
