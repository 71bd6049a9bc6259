"""Cohorts of digital patients, and their files."""
