"""Lesions, scores, categories, evidence, comparison and repeatability."""
