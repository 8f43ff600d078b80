"""How a cohort is cut into shards, so that a slide more or less changes its own shard and hardly any other.

Slides have places in [0, 1) by the hash of their id. Beginning with one shard of all slides, the largest shard is
halved, at the middle of its interval, until there are ⌈slides / shard_size⌉ shards. A shard's borders so depend on
its own slides and on which shards are the largest, never on how many slides come before it. One slide more or less
changes one shard, and at times the halving of one or two others; sizes are within about 0.5 to 1.5 × shard_size.
"""

import bisect
import functools
import hashlib
import heapq
import json
from collections.abc import Sequence
from pathlib import Path

from midnight.errors import ConfigError
from midnight.slides.manifest import cells_of, read_manifest, stamp
from midnight.slides.record import Slide

BITS = 256

Node = tuple[int, int, int, int]
"""A shard on the heap: minus its slides, its number, and its first and last row (excluded) in the order of hashes."""


def cut(slides: Sequence[Slide], shard_size: int) -> dict[str, list[Slide]]:
    """The shards of a cohort by name, each in the order of `slides`.

    A shard's number says where it is in the tree of halvings: 1 is everything, 2n and 2n + 1 are the halves of n.

    Args:
        slides: of the manifest; their order does not matter for the cut.
        shard_size: slides per shard, on average.

    Raises:
        ConfigError: `shard_size` is less than 1.
    """
    if shard_size < 1:
        raise ConfigError(f"shard_size: must be at least 1, is {shard_size}")
    if not slides:
        return {}
    order = sorted((_place(slide), number) for number, slide in enumerate(slides))
    places = [place for place, _ in order]
    heap: list[Node] = [(-len(order), 1, 0, len(order))]
    while len(heap) < -(-len(order) // shard_size):
        _, number, start, stop = heapq.heappop(heap)
        for half in _halves(places, number, start, stop):
            heapq.heappush(heap, half)
    numbers = {number: sorted(row for _, row in order[start:stop]) for _, number, start, stop in heap}
    return {f"{number:04d}": [slides[row] for row in rows] for number, rows in sorted(numbers.items())}


def _place(slide: Slide) -> int:
    """A slide's place, times 2^BITS."""
    return int.from_bytes(hashlib.sha256(slide.slide_id.encode()).digest())


def _halves(places: Sequence[int], number: int, start: int, stop: int) -> tuple[Node, Node]:
    """A shard's halves; a half without slides is no shard, and the other one is halved in its stead."""
    while True:
        left, right = 2 * number, 2 * number + 1
        depth = right.bit_length() - 1
        middle = bisect.bisect_left(places, (right << (BITS - depth)) - (1 << BITS), start, stop)
        if start < middle < stop:
            return (start - middle, left, start, middle), (middle - stop, right, middle, stop)
        number = left if middle == stop else right


def cut_manifest(path: str | Path, shard_size: int) -> dict[str, list[Slide]]:
    """The shards of a manifest in our own form; cut once while the file stays as it is.

    Raises:
        ConfigError: see `read_manifest` and `cut`.
    """
    return _cut_once(str(path), stamp(path), shard_size)


@functools.lru_cache(maxsize=16)
def _cut_once(path: str, _stamp: tuple[int, int], shard_size: int) -> dict[str, list[Slide]]:
    return cut(read_manifest(path), shard_size)


def digest(slides: Sequence[Slide]) -> str:
    """Hash (16 hex digits) of slides' rows; changes when, and only when, one of them does."""
    return hashlib.sha256(json.dumps([cells_of(slide) for slide in slides]).encode()).hexdigest()[:16]
