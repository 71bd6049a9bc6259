"""Inputs changed at random, and what becomes of them: `python -m fuzz --help` (with Testing on the path)."""
