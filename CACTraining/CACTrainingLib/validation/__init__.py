"""How well automatic scores agree with reference scores: readers of published references, and the page of agreement."""
