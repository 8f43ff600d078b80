"""The embedded demo: generated slides and data sets, and a GDC service on loopback."""
