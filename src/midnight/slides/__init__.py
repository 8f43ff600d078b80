"""Where slides come from: manifests, the GDC, local folders, downloads, quarantine."""
