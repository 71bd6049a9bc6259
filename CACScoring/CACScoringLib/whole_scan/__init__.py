"""Scores and classes estimated from a whole scan, without segmenting lesions."""
