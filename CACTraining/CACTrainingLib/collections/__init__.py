"""Public collections of scans: import into a project with checks and an inventory."""
