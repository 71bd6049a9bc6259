"""Estimates from a whole scan: their data, training and studies."""
