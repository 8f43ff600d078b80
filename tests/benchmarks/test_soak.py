"""The parts of the soak that can be tested without waiting."""

from pathlib import Path

import pytest

from benchmarks.tiles_support import damage
from benchmarks.tiles_support.watch import Sample, Watch, handle_verdict, memory_verdict


def samples(pss: list[float], handles: list[int], slides: int = 3) -> list[Sample]:
    rows = zip(pss, handles, strict=True)
    return [Sample(float(n), (2 * size,), (size,), (count,), (slides,)) for n, (size, count) in enumerate(rows)]


def test_memory_that_stays_is_flat_and_memory_that_grows_is_not() -> None:
    steady = [500.0 + n % 3 for n in range(41)]
    assert memory_verdict(samples(steady, [20] * 41))["ok"]
    growing = memory_verdict(samples([500.0 + 3 * n for n in range(41)], [20] * 41))
    assert not growing["ok"] and growing["slope_mb_per_minute"] == pytest.approx(180)


def test_warm_up_does_not_count_as_growth() -> None:
    assert memory_verdict(samples([50.0 * min(n, 10) for n in range(41)], [20] * 41))["ok"]


def test_handles_may_sway_but_not_grow_nor_pass_the_bound() -> None:
    assert handle_verdict(samples([1.0] * 41, [20 + 8 * (n % 2) for n in range(41)]), 4)["ok"]
    assert not handle_verdict(samples([1.0] * 41, [20 + n for n in range(41)]), 4)["ok"]
    assert not handle_verdict(samples([1.0] * 41, [20] * 41, slides=5), 4)["ok"]


def test_a_sample_holds_memory_and_handles_of_this_process(tmp_path: Path) -> None:
    sample = Watch(tmp_path).sample()
    assert sample.rss[0] > 1 and sample.handles[0] > 0
    assert len({len(sample.rss), len(sample.pss), len(sample.handles), len(sample.slides)}) == 1


def test_every_kind_of_damage_changes_the_file(tmp_path: Path) -> None:
    before = bytes(range(256)) * 40
    for name, kind in damage.kinds().items():
        path = tmp_path / f"{name}.svs"
        path.write_bytes(before)
        kind(path)
        unreadable = not path.exists() or path.stat().st_mode & 0o777 == 0
        assert unreadable or path.read_bytes() != before, name


def test_zeroed_slides_keep_header_and_length(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(b"\x01" * 1000)
    damage.blank(path)
    assert path.read_bytes() == b"\x01" * 16 + bytes(484) + b"\x01" * 500


def test_slides_are_damaged_in_turn(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.svs" for number in range(3)]
    for path in paths:
        path.write_bytes(b"\x01" * 100)
    damager = damage.Damager(paths, 0.0, 0.01)
    damager.start()
    damager.join(timeout=5)
    assert damager.done == {"0": "vanish", "1": "truncate", "2": "garble"}
    assert not paths[0].exists() and paths[1].stat().st_size == 33
