"""Evaluation of methods and models: measures with their intervals, long work, and the pages of studies."""
