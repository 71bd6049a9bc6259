"""Second opinions: scores and classes read from a CT without segmenting lesions, and their studies."""
