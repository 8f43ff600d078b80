"""Shards stay what they are when slides come and go elsewhere in the cohort."""

import time
from pathlib import Path
from statistics import mean

import pytest

from midnight.errors import MidnightError
from midnight.slides.manifest import read_gdc_manifest, write_manifest
from midnight.slides.record import Slide
from midnight.slides.sharding import cut, cut_manifest, digest

MD5 = "0123456789abcdef0123456789abcdef"


def slide(number: int, size: int = 10) -> Slide:
    return Slide(f"s{number:05d}", "gdc", f"id-{number}", f"s{number}.svs", size, MD5)


def cohort(count: int) -> list[Slide]:
    return [slide(number) for number in range(count)]


def changed(before: list[Slide], after: list[Slide], shard_size: int) -> int:
    """Shards that the cohort has after a change and that were not the same before it."""
    old, new = cut(before, shard_size), cut(after, shard_size)
    return sum(old.get(name) != slides for name, slides in new.items())


@pytest.mark.parametrize(("count", "shard_size"), [(1, 64), (2, 1), (8, 4), (40, 4), (65, 16), (128, 64), (1000, 64)])
def test_shards_cover_every_slide_once_in_as_many_parts_as_the_size_asks_for(count: int, shard_size: int) -> None:
    slides = cohort(count)
    shards = cut(slides, shard_size)
    assert sorted((item for part in shards.values() for item in part), key=lambda item: item.slide_id) == slides
    assert all(part == sorted(part, key=lambda item: item.slide_id) for part in shards.values())
    assert len(shards) == -(-count // shard_size)
    assert list(shards) == sorted(shards, key=int)
    assert all(name.isdecimal() and len(name) >= 4 for name in shards)
    assert all(1 <= len(part) <= 2 * shard_size for part in shards.values())


def test_no_slides_are_no_shards_and_a_size_of_nothing_is_refused() -> None:
    assert cut([], 64) == {}
    assert list(cut(cohort(64), 64)) == ["0001"]
    with pytest.raises(MidnightError, match="shard_size"):
        cut(cohort(3), 0)


@pytest.mark.parametrize(("count", "shard_size"), [(40, 4), (65, 16), (640, 64)])
def test_one_slide_less_changes_its_own_shard_and_hardly_any_other(count: int, shard_size: int) -> None:
    slides = cohort(count)
    counts = [changed(slides, [*slides[:number], *slides[number + 1 :]], shard_size) for number in range(count)]
    assert mean(counts) < 2
    assert max(counts) <= 5


def test_slides_more_and_other_orders_change_hardly_anything() -> None:
    slides = cohort(1000)
    assert cut(slides, 64).keys() == cut(slides[::-1], 64).keys()
    assert changed(slides, [*slides[:500], slide(9999), *slides[500:]], 64) <= 5
    assert changed(slides, cohort(1020), 64) < 16, "with 20 of 1,000 slides more, shards stay that none came into"


def test_the_cut_of_today_is_the_cut_of_tomorrow() -> None:
    """Another cut with the same code and slides would segment every cohort again."""
    numbers = {name: [int(item.slide_id[1:]) for item in part] for name, part in cut(cohort(6), 2).items()}
    assert numbers == {"0002": [1], "0006": [0, 5], "0007": [2, 3, 4]}


def test_digest_follows_the_shards_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "manifest.tsv"
    slides = cohort(10)
    write_manifest(path, slides, {"date": "monday"})
    before = {name: digest(part) for name, part in cut_manifest(path, 4).items()}
    assert len(set(before.values())) == 3
    slides[5] = slide(5, size=999)
    write_manifest(path, slides, {"date": "tuesday, later"})
    shards = cut_manifest(path, 4)
    assert [name for name, part in shards.items() if digest(part) != before[name]] == [
        name for name, part in shards.items() if slides[5] in part
    ]


def test_real_manifest_in_184_shards(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "tcga" / "gdc_manifest_tcga_dx_2024-08.tsv.gz"
    if not source.is_file():
        pytest.skip("no pinned GDC manifest in ../shared/data/tcga")
    slides = read_gdc_manifest(source)
    path = tmp_path / "manifest.tsv"
    write_manifest(path, slides, {})
    assert sum(item.size for item in slides) == 12_949_031_283_023
    assert all(item.case_id.startswith("TCGA-") and not item.project_id for item in slides)
    shards = cut_manifest(path, 64)
    assert sum(map(len, shards.values())) == 11_765
    assert len({digest(part) for part in shards.values()}) == 184
    assert min(map(len, shards.values())) >= 32 and max(map(len, shards.values())) <= 96
    start = time.process_time()
    for name in shards:
        digest(cut_manifest(path, 64)[name])
    assert time.process_time() - start < 1


def test_one_real_slide_excluded_leaves_nearly_all_shards_alone(shared_dir: Path) -> None:
    source = shared_dir / "data" / "tcga" / "gdc_manifest_tcga_dx_2024-08.tsv.gz"
    if not source.is_file():
        pytest.skip("no pinned GDC manifest in ../shared/data/tcga")
    slides = read_gdc_manifest(source)
    counts = [changed(slides, [*slides[:n], *slides[n + 1 :]], 64) for n in range(0, len(slides), 1500)]
    assert max(counts) <= 5 and mean(counts) < 2
