"""Version of CAC, stated in results."""

VERSION = "0.2.0"
"""Version in pyproject.toml, repeated here because Slicer has no package metadata."""
