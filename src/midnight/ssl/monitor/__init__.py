"""What is seen of a run while it trains: curves, the probe, pictures of crops, tracking."""
