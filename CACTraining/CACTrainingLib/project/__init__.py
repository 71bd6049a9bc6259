"""Annotated scans: annotations, splits, proposals, work list."""
