"""The objective's parts, one per file; all in float32, all aware of a process group."""
