"""What a reader changes, the totals that follow, undo and export."""
