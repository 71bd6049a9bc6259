"""Many scans scored by one command."""
