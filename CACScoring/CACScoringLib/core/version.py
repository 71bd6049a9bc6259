"""The version of CAC, as results for other systems state it."""

VERSION = "0.2.0"
"""As in pyproject.toml; Slicer has no metadata of packages to ask."""
