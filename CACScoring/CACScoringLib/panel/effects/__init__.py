"""What the segment editor effects share."""
