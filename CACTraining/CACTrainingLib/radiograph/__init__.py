"""Models that read calcium from chest radiographs: their data and training."""
