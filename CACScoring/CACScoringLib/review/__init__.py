"""Review: a reader's changes, their totals, undo and export."""
