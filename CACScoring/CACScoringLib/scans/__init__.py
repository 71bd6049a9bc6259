"""Lists of scans: folders, and tables with a line per scan."""
