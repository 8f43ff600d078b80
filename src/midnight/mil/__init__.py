"""Features of whole slides for multiple-instance learning: one HDF5 file per slide, as CLAM and TRIDENT read them."""
