"""Which lesions of a result are true: results beside references, the studies made of them, and the calibration."""
