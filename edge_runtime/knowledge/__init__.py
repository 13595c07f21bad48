"""Documents to chunks to an index of vectors and words, and back to cited answers."""
