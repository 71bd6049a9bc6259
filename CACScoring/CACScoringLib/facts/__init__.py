"""Facts of a scan that its scores follow from: measured once, written beside a result, and read again."""
