"""What a run keeps and is known by: checkpoints, its key, progress of other values, finished models."""
