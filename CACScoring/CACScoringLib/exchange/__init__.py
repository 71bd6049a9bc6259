"""Results and reviews as DICOM objects: segmentation, structured reports, encapsulated PDF, key slices."""
