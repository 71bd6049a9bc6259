"""Regression of the arteries' scores."""
