"""Zero or non-zero calcium by radiomic features."""
