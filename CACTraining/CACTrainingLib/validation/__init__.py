"""Validation against reference scores: readers of published references, and the page of agreement."""
