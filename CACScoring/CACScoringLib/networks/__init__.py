"""Architectures of the networks."""
