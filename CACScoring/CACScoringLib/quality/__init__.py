"""Quality of a scan: acquisition, kernel and slices, noise, metal, calibration range."""
