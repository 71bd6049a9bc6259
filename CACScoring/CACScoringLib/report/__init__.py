"""Results as JSON, CSV, HTML and pictures."""
