"""Review in the browser: scans, their reviews and journals, the work list, and the server of the page."""
