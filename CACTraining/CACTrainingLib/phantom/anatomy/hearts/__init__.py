"""Hearts measured on meshes of real ones: chambers, great vessels and coronary arteries in one common frame."""
