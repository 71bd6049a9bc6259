"""The scan, labels, files, progress and resources that everything else knows."""
