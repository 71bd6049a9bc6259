"""Studies of scan pairs: reproducibility, detection, accuracy, ablation, acquisition, models."""
