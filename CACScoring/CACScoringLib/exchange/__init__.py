"""Results and reviews as DICOM objects: segmentation and structured report."""
