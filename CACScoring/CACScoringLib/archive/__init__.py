"""DICOM archives: CT series out, results back in, over DICOMweb and DIMSE."""
