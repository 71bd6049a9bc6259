"""Results and reviews as DICOM objects: segmentation, structured reports, key slices."""
