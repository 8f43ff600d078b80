"""Tiles drawn beforehand: a fixed set of distinct tiles in tar shards, with an index that finds each by one read."""
