"""Reading CTs, masks and label maps: DICOM, NIfTI, NRRD, MetaImage."""
