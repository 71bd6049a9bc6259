"""Results as nodes of a MRML scene, and nodes back as images."""
