"""Public collections of scans: facts, download, and import into a project with checks and an inventory."""
