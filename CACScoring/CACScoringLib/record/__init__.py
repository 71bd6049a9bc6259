"""The content of `scores.json`, typed, and its reader."""
