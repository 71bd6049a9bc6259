"""How far a scan can be trusted: acquisition, kernel and slices, noise, metal, calibration range."""
