"""The studies of radiograph models."""
