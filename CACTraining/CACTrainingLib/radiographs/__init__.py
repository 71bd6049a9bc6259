"""Models that read calcium from chest radiographs: their data, training and study."""
