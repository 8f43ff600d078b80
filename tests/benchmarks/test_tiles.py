"""The parts of the tile benchmark that can be tested without timing anything."""

import importlib.util
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from benchmarks.tiles_support import core, flat, jpegs, limit, ours, page, peer, sharpness, slides, timing
from benchmarks.tiles_support.memory import handles_of, in_child, memory_of
from midnight.tissue.index import training_slides
from tests.benchmarks.scripts import load_script

REPOSITORY = Path(__file__).resolve().parents[2]
needs_peer = pytest.mark.skipif(peer.missing, reason="wsistream is not installed (make bench)")
PLAN = slides.Plan(3000, 64, seed=1)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / PLAN.name
    slides.write_slide(path, PLAN)
    return path


@pytest.fixture(scope="module")
def index(slide: Path) -> Path:
    return ours.build_index([slide], slide.with_name("index.parquet"))


def test_slides_open_as_aperio_with_three_levels(slide: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        assert opened.properties["openslide.vendor"] == "aperio"
        assert float(opened.properties["openslide.mpp-x"]) == 0.25
        assert opened.level_dimensions == ((3000, 3000), (750, 750), (187, 187))
    with tifffile.TiffFile(slide) as file:
        assert [page.is_tiled for page in file.pages] == [True, False, True, True]
        assert file.pages[0].jpegtables


def test_levels_show_the_same_picture(slide: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        fine = np.asarray(opened.read_region((1024, 1024), 0, (512, 512)).convert("RGB"))
        coarse = np.asarray(opened.read_region((1024, 1024), 1, (128, 128)).convert("RGB"))
    averaged = sharpness.area_average(fine, 4)
    apart = [np.abs(averaged[2:-2, 2:-2] - np.roll(coarse, by, (0, 1))[2:-2, 2:-2]).mean() for by in (0, -1, 1)]
    assert apart[0] < 7 and 1.5 * apart[0] < min(apart[1:]), apart


def test_the_name_of_a_slide_depends_on_every_setting() -> None:
    plans = [PLAN, slides.Plan(3000, 64, 2), slides.Plan(3000, 64, 1, noise=1), slides.Plan(3000, 64, 1, quality=70)]
    assert len({plan.name for plan in plans}) == len(plans)


def test_slides_that_are_there_are_not_made_again(slide: Path) -> None:
    before = slide.stat().st_mtime_ns
    assert slides.make_slides(slide.parent, [PLAN]) == [slide]
    assert slide.stat().st_mtime_ns == before


def test_abbreviated_streams_and_tables_make_the_same_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    whole = jpegs.encode(image, 75)
    tables, stream = jpegs.split(whole)
    assert len(stream) < len(whole)
    decoded = [
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (whole, jpegs.join(tables, stream))
    ]
    np.testing.assert_array_equal(*decoded)


def test_summaries_are_medians_over_repetitions() -> None:
    readings = [timing.Reading(100, wall, cpu) for wall, cpu in ((1.0, 0.5), (2.0, 0.4), (4.0, 3.0))]
    found = timing.summarise(readings)
    assert found == {"tiles_per_s": 50, "wall_ms": 20, "cpu_ms": 5, "spread": 1.5, "repetitions": 3}


def test_ratios_are_above_one_where_ours_is_faster() -> None:
    fast, slow = {"tiles_per_s": 90.0, "cpu_ms": 10.0}, {"tiles_per_s": 20.0, "cpu_ms": 50.0}
    assert timing.compare(fast, slow, 4.5) == {"ratio": 4.5, "ratio_cpu": 5.0, "goal": 4.5, "reached": True}
    assert timing.compare(slow, fast)["ratio"] < 1


def test_sides_are_driven_in_turn() -> None:
    order: list[str] = []

    def side(name: str) -> Iterator[int]:
        while True:
            order.append(name)
            yield 3

    found = timing.interleave({"x": side("x"), "y": side("y")}, 2, 0.0)
    assert order == ["x", "y"] * 3
    assert [reading.tiles for reading in found["x"]] == [3, 3]


def test_a_side_is_driven_for_at_least_the_time() -> None:
    reading = timing.drive(itertools.repeat(1), 0.02)
    assert reading.wall >= 0.02 and reading.tiles > 1


def test_one_core_pins_and_lets_go() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("cores can't be chosen here")
    before = os.sched_getaffinity(0)
    threads = cv2.getNumThreads()
    with timing.one_core() as core_:
        assert os.sched_getaffinity(0) == {core_}
    cv2.setNumThreads(threads)
    assert os.sched_getaffinity(0) == before


def test_gradient_variance_falls_with_blur() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert sharpness.gradient_variance(cv2.blur(sharp, (3, 3))) < 0.5 * sharpness.gradient_variance(sharp)
    flat_ = np.full((8, 8, 3), 7, np.uint8)
    assert sharpness.gradient_variance(flat_) == 0


def test_area_averages_are_exact() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    averaged = sharpness.area_average(pixels, 2)
    assert averaged.shape == (2, 3, 3)
    np.testing.assert_array_equal(averaged[0, 0], pixels[:2, :2].reshape(4, 3).mean(axis=0))


def test_reads_name_the_jpeg_tiles_that_they_touch(slide: Path) -> None:
    reads = [limit.Read(str(slide), 0, 60, 0, 8, 64, 1), limit.Read(str(slide), 1, 700, 740, 50, 10, 2)]
    (first, second) = limit.touched_jpegs(reads)
    assert [least for _, least in first] == [64, 64]
    assert [least for _, least in second] == [32, 32]
    decoded = cv2.imdecode(np.frombuffer(first[0][0], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    with openslide.OpenSlide(slide) as opened:
        np.testing.assert_array_equal(decoded, np.asarray(opened.read_region((0, 0), 0, (64, 64)).convert("RGB")))


def test_the_best_reduction_of_a_read_is_a_power_of_two() -> None:
    pytest.importorskip("midnight.tiles.read.reader")
    from types import SimpleNamespace as Fake

    record = Fake(path="x.svs")
    reduce = [
        limit._read(record, Fake(size=256, side=side, level=0), 0, 0, 1, 1).reduce for side in (256, 511, 512, 1024)
    ]  # type: ignore[arg-type]
    assert reduce == [1, 1, 2, 4]


def test_peers_levels_become_weights() -> None:
    assert peer.native({0.25: 0.25, 0.5: 0.25, 1.0: 1.0, 2.0: 1.0}) == ((0.25, 1.0), (2.0, 2.0))


@needs_peer
def test_the_peer_reads_the_nearest_level(slide: Path) -> None:
    assert peer.levels_read(slide) == {0.25: 0.25, 0.5: 0.25, 1.0: 1.0, 2.0: 1.0}


@needs_peer
def test_the_peer_gives_crops_of_the_recipe(slide: Path) -> None:
    found = next(iter(peer.pipeline([slide], ours.CROPS)))
    sizes = sorted(view.shape[0] for view in found.views.values())
    assert sizes == [98] * 8 + [224] * 2


def test_links_to_few_slides_fill_an_index(index: Path, tmp_path: Path) -> None:
    many = training_slides(flat.make_index(index, 25, tmp_path / "links"))
    assert len(many) == 25 and len({record.path for record in many}) == 25
    np.testing.assert_array_equal(many[7].mask(), training_slides(index)[0].mask())
    with openslide.OpenSlide(many[-1].path) as opened:
        assert opened.dimensions == (3000, 3000)


def test_a_child_process_reports_its_memory() -> None:
    assert in_child(memory_of)["rss"] > 1


def test_handles_on_a_folder_are_counted(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    before = handles_of(os.getpid(), tmp_path)
    with (tmp_path / "slide.svs").open("w"):
        after = handles_of(os.getpid(), tmp_path)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def fake_measure() -> dict[str, dict[str, float]]:
    names = [f"{who} {mode}" for who in ("peer", "exact", "native") for mode in "abc"]
    speeds = dict.fromkeys([*names, "bare decode", "openslide reads"], 100.0) | {"exact c": 500.0}
    return {
        name: {"tiles_per_s": speed, "wall_ms": 1000 / speed, "cpu_ms": 1000 / speed} for name, speed in speeds.items()
    }


def test_goals_are_held_against_the_peer_in_the_same_mode() -> None:
    found = fake_measure()
    assert core.to_peer(found, "exact c") == {"ratio": 5.0, "ratio_cpu": 5.0, "goal": 4.5, "reached": True}
    assert core.to_peer(found, "native c")["reached"] is False
    assert core.to_limit(found) == {"times": 1.0, "times_cpu": 1.0, "goal_at_most": 1.5, "reached": True}


def test_a_page_names_hardware_versions_and_command_but_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/tiles.py", "--quick", "--data", "/somewhere", "--out=/somewhere/x.md"])
    rows = page.table([{"side": "ours", "tiles/s": 123.456}, {"side": "peer", "tiles/s": None}])
    page.write_page(tmp_path / "page.md", "Title", "Summary.", {"One core": rows})
    text = (tmp_path / "page.md").read_text()
    assert "somewhere" not in text and "`python benchmarks/tiles.py --quick`" in text
    assert re.search(r"^20\d\d-\d\d-\d\d, commit ", text, re.MULTILINE)
    assert "numpy 2" in text and "| ours | 123.5 |" in text and "| peer |  |" in text


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("tiles", monkeypatch)


@needs_peer
@pytest.mark.skipif(importlib.util.find_spec("simplejpeg") is None, reason="simplejpeg is not installed (make bench)")
@pytest.mark.slow
def test_a_tiny_run_gives_the_agreed_object_and_a_page(script: ModuleType, slide: Path) -> None:
    class Tiny(script.Effort):
        def plans(self) -> list[slides.Plan]:
            return [PLAN]

    effort = Tiny(1, PLAN.size, 1, 0.01, 1, 0.01, (2,), 0.01, 1, 0.01, 2, 16)
    found = script.run(effort, slide.parent)
    assert list(found) == ["name", "unit", "ours", "peer", "ratio", "goal", "details"]
    assert found["ours"] > 0 and found["peer"] > 0 and found["goal"] == 4.5
    assert found["ratio"] == pytest.approx(found["ours"] / found["peer"], abs=0.02)
    details = json.loads(json.dumps(found))["details"]
    assert {"sides", "to_peer", "to_limit", "memory", "two_workers", "slides_in_index", "sharpness"} <= set(details)
    assert {name: ratio["goal"] for name, ratio in details["to_peer"].items() if "goal" in ratio} == core.GOALS
    parts = script.sections(details)
    assert "| exact c |" in parts["One core"] and "| 2 |" in parts["Slides in the index"]
    assert "against" in script.summary(found)


def test_the_bench_lock_extends_the_lock_without_changing_it() -> None:
    run, bench = (
        dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE))
        for path in (REPOSITORY / "envs" / f"requirements{kind}.lock" for kind in ("", "-bench"))
    )
    assert {name: bench.get(name) for name in run} == run
    assert bench["wsistream"] == "0.1.6" and "simplejpeg" in bench and "wsistream" not in run
