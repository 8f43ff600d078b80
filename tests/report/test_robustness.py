import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from midnight.evaluate.records import Record, aggregate
from midnight.report.comparison import compare_to_random
from midnight.report.page import ReportInputs, render
from midnight.report.robustness import build_robustness, compare
from midnight.report.scores import Score, load_scores
from midnight.report.tables import build_further, build_tables
from tests.report.example import write_scores


def score(
    task: str = "bach", values: tuple[float, ...] = (0.5, 0.7), of: str = "", text: str = "", **more: object
) -> Score:
    record = {"values": list(values), "extra": {"variant_of": of, "perturbation": text} if of else {}}
    mean = sum(values) / len(values)
    plain = Score("a", "A", 224, "cls_mean", task, task, "m", mean, 0.1, 0.05, len(values), "paper", "real", record)
    return replace(plain, **more)


def stain(values: tuple[float, ...] = (0.4, 0.55), **more: object) -> Score:
    return score("bach-stain", values, "bach", "stain σ 0.2", **more)


def write_variants(folder: Path) -> list[Path]:
    """The example's scores, and BACH's again as a variant that is 0.1 lower in each run."""
    paths = write_scores(folder)
    for path in [path for path in paths if path.stem == "bach"]:
        record = json.loads(path.read_text())
        record |= {"task": "bach-stain", "column": "bach-stain", "mean": record["mean"] - 0.1}
        record["values"] = [value - 0.1 for value in record["values"]]
        record["extra"] = {"variant_of": "bach", "perturbation": "stain σ 0.2"}
        paths.append(path.with_name("bach-stain.json"))
        paths[-1].write_text(json.dumps(record))
    return paths


def test_differences_are_of_the_same_heads() -> None:
    change = compare(stain(), score())
    assert change.difference == pytest.approx(-0.125)
    assert change.error == pytest.approx(0.025)
    assert compare(stain((0.4,)), score()).error is None
    assert compare(stain(), None).difference is None
    assert compare(stain(mean=None), score()).difference is None


def test_a_row_per_model_and_task_and_a_column_per_perturbation() -> None:
    zoom = score("bach-zoom", (0.6, 0.8), "bach", "magnification × 1.25")
    scores = [
        score(),
        stain(),
        zoom,
        stain(model="b", label="B"),
        stain(data="demo"),
        stain(pooling="cls"),
        score("crc"),
    ]
    tables = build_robustness(scores)
    assert [(table.data, table.pooling) for table in tables] == [
        ("real", "CLS+Mean"),
        ("real", "CLS"),
        ("demo", "CLS+Mean"),
    ]
    first = tables[0]
    assert first.perturbations == ("stain σ 0.2", "magnification × 1.25")
    assert [(row.task, row.label, row.score) for row in first.rows] == [("BACH", "A", 0.6), ("bach", "B", None)]
    assert first.rows[0].changes["magnification × 1.25"].difference == pytest.approx(0.1)
    assert set(first.rows[1].changes) == {"stain σ 0.2"}
    assert build_robustness([score(), score("crc")]) == []


def test_sizes_of_a_model_are_told_apart() -> None:
    scores = [each for size in (224, 392) for each in (score(size=size), stain(size=size))]
    assert [row.label for row in build_robustness(scores)[0].rows] == ["A/224", "A/392"]


def test_variants_are_in_no_table_average_or_comparison(tmp_path: Path) -> None:
    paths = write_variants(tmp_path)
    scores = load_scores(paths)
    plain = [each for each in scores if not each.variant_of]
    assert len(scores) == len(plain) + 6
    assert build_tables(scores) == build_tables(plain)
    assert build_further(scores) == build_further(plain) == []
    assert compare_to_random(scores, {}) == compare_to_random(plain, {})
    # Not even if a record claims a column of the paper.
    assert build_tables([score(), replace(stain(), column="bach")]) == build_tables([score()])


def test_the_average_of_records_leaves_variants_out() -> None:
    facts = {
        "label": "A",
        "size": 224,
        "pooling": "cls",
        "metric": "m",
        "values": [],
        "stdev": 0,
        "sem": 0,
        "n_runs": 1,
    }
    facts |= {"protocol": "paper", "data": "real", "versions": {}, "seconds": 0, "provenance": {}}
    facts |= {"config_hash": "", "data_hash": "", "model_hash": ""}
    plain = Record(model="a", task="bach", column="bach", mean=0.5, **facts)
    variant = replace(plain, task="v", column="v", mean=0.1, extra={"variant_of": "bach", "perturbation": "x"})
    assert aggregate([plain, variant]) == 0.5


def test_the_page_has_the_section_only_with_such_scores(inputs: ReportInputs, tmp_path: Path) -> None:
    assert "Robustness" not in render(inputs)
    page = render(replace(inputs, scores=write_variants(tmp_path), figures=()))
    section = page[page.index("<h3>Robustness") : page.index('<section id="training-helps"')]
    assert section.count("−.100") == 6
    assert "stain σ 0.2" in section
    assert not re.search(r"\b(nan|NaN|None)\b", section)
    assert "bach-stain" not in page[: page.index("<h3>Robustness")]
