"""Readings of scored scans by several readers: their plan, progress and journals."""
