"""Studies of scan pairs: reproducibility, detection, the heart, ablation."""
