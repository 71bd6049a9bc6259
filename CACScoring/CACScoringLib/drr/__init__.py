"""Digitally reconstructed radiographs."""
