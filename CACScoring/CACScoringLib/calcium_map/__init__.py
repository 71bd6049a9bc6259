"""Slice classifier, calcium map and healthy image of a scan."""
