"""Scans with known calcium as training samples."""
