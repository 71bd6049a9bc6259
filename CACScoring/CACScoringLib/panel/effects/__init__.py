"""Common parts of the segment editor effects."""
