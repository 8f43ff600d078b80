"""Random numbers that depend only on what they are for: (seed, sample, purpose)."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What numbers are drawn for. Each has its own stream, so that one more draw here changes nothing there."""

    PLACE = 0
    STAIN = 1
    CROPS = 2
    EXAMPLES = 3


def generator(seed: int, index: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one sample: Philox keyed by seed and purpose, its counter started at the sample's index.

    Philox is counter-based: streams with different keys or counters are independent, none has to be skipped
    through, and 2^64 blocks of numbers are free for each sample.
    """
    key = np.array([seed, int(purpose)], dtype=np.uint64)
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
