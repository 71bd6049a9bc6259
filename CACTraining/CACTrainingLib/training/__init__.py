"""Training loop, runs, and one file per network."""
