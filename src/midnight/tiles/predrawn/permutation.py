"""A random order of N tiles that needs no memory: what stands at place p is computed from p.

A Feistel network is a bijection of 2^(2h) numbers whatever its round function is. Numbers beyond N are sent
through it again until they fall below N (cycle walking), which leaves a bijection of the N numbers [Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002]. The network is less than 4 N wide, so that it is
passed less than 4 times on average.
"""

import numpy as np
import numpy.typing as npt

from midnight.tiles.draw.rng import Purpose, generator

Numbers = npt.NDArray[np.uint64]
ROUNDS = 8


def permute(places: npt.NDArray[np.integer], count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """What stands at `places` in the order of [0, count) that (seed, epoch) gives.

    Args:
        places: integers in [0, count).
        count: length of the order, at most 2^62.
        seed: of the run.
        epoch: each has an order of its own.

    Returns:
        int64, of the shape of `places`; different places have different values in [0, count).
    """
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    keys = generator(seed, epoch, Purpose.ORDER).integers(0, 2**64, ROUNDS, dtype=np.uint64)
    found = _network(np.asarray(places).astype(np.uint64), keys, half)
    while (beyond := found >= count).any():
        found[beyond] = _network(found[beyond], keys, half)
    return found.astype(np.int64)


def _network(numbers: Numbers, keys: Numbers, half: np.uint64) -> Numbers:
    """The Feistel network on numbers of 2 · half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(numbers: Numbers) -> Numbers:
    """SplitMix64's finaliser [Steele et al. 2014]: each bit of the input flips each of the output half of the time."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
