"""Which slices show calcium, and the calcium map and healthy image of a scan."""
