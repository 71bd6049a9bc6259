"""Trained networks on disk: cards, store, loading, preprocessing, inference."""
