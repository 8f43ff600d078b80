import json
from pathlib import Path

import pytest

from midnight.cli import main
from midnight.errors import MidnightError
from midnight.paths import Layout
from midnight.report.asked import Asked, AskedModel, read_asked, write_asked
from midnight.report.cures import cure, troubles
from midnight.report.ledger import Quarantined
from midnight.report.summary import newest_results, summary
from midnight.slides.record import Refused
from tests.report.example import MODELS, TASKS, write_manifest_of, write_scores, write_slides, write_tissue

ASKED = Asked(
    cohorts=["demo"],
    runs=["demo", "demo-hr"],
    models={
        name: AskedModel(label, [size], name if name != "demo-init" else None)
        for name, (label, size, _) in MODELS.items()
    },
    poolings=["cls", "cls_mean"],
    tasks=list(TASKS),
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A run that went well, of which two slides are damaged, one has no resolution."""
    folder = tmp_path / "results" / "demo"
    write_scores(folder / "scores")
    write_slides(folder / "slides")
    write_tissue(folder / "tissue")
    for run in ASKED.runs:
        path = Path(Layout(str(folder), "").model(run, "teacher.safetensors"))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    write_asked(Layout(str(folder), "").asked(), ASKED)
    (folder / "report.html").write_text("page")
    (folder / "logs").mkdir()
    (folder / "mlflow.db").write_bytes(b"")
    return folder


DAMAGED = "the service has a damaged file or the manifest an old entry: pin the manifest again, or list it in `exclude`"


def log(folder: Path, name: str, text: str) -> Path:
    path = folder / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_run_that_went_well(results: Path) -> None:
    text = summary(results)
    lines = text.splitlines()
    assert lines[0] == f"Summary of {results}"
    assert lines[1] == "  Slides     5 of 8 used, 31 mm² of tissue"
    assert "left out 1 (tissue): no resolution" in text and "do: give mpp in a CSV: path,mpp" in text
    assert "slides: s06" in text
    assert f"  Report     {results}/report.html" in lines
    assert f"  MLflow     mlflow ui --backend-store-uri sqlite:///{results}/mlflow.db" in lines
    assert "Failed" not in text and "Not begun" not in text
    assert len(lines) < 30 and max(map(len, lines)) < 180


def test_files_that_did_not_become_slides_are_named(results: Path) -> None:
    write_manifest_of(results / "cohorts", [Refused("'a.vsi'", "convert it to a pyramidal TIFF")])
    text = summary(results)
    assert "5 of 8 used" in text
    assert "left out 1 (pinning): convert it to a pyramidal TIFF" in text and "slides: 'a.vsi'" in text


def test_the_scores_are_the_table_s_best_first(results: Path) -> None:
    lines = summary(results).splitlines()
    (title,) = [i for i, line in enumerate(lines) if "not comparable with published numbers" in line]
    assert lines[title].startswith("  Scores     CLS+Mean, protocol demo (generated data")
    assert lines[title + 1].split() == ["mean", "pc10", "bach", "cnsp", "HEST"]
    assert [line.split("  .")[0].strip() for line in lines[title + 2 : title + 5]] == [
        "Demo/196",
        "Demo",
        "Random init",
    ]


def test_models_that_failed_are_named_with_reason_and_log(results: Path) -> None:
    gone = list((results / "scores" / "demo").rglob("bach.json"))
    for path in gone:
        path.unlink()
    said = log(results, "score/demo-112", "fine\n2026-11-26 02:00:00 ERROR midnight: BACH: 3 images are missing\n")
    text = summary(results)
    assert "Failed     model Demo at 112 px: 2 of 10 scores missing: BACH: 3 images are missing" in text
    assert f"log: {said}" in text


def test_a_run_that_failed_explains_its_model_too(results: Path) -> None:
    (results / "models" / "demo-hr" / "teacher.safetensors").unlink()
    (results / "models" / "demo-hr" / "failure.json").write_text(json.dumps({"error": "out of memory", "times": 1}))
    log(results, "train/demo-hr", "…\n")
    (results / "report.html").unlink()
    text = summary(results)
    assert "Failed     run demo-hr: not trained: out of memory" in text
    assert "model Demo/196" not in text
    assert "  Report     not written yet" in text.splitlines()


def test_slides_that_can_t_be_had_are_the_first_failure(results: Path) -> None:
    (results / "tissue" / "demo" / "index.parquet").unlink()
    log(results, "fetch_slides/demo/0001", "2026 ERROR midnight: the service is down\nTraceback\nOSError\n")
    assert "  Failed     cohort demo: its slides are not ready: the service is down" in summary(results).splitlines()


def test_what_was_not_begun_is_no_failure(results: Path) -> None:
    for path in (results / "scores" / "demo-init").rglob("*.json"):
        path.unlink()
    assert "  Not begun  1: model Random init at 112 px" in summary(results).splitlines()


def test_what_a_run_was_not_asked_for_is_no_failure(results: Path) -> None:
    for path in (results / "scores" / "demo-init").rglob("*.json"):
        path.unlink()
    log(results, "score/demo-init-112", "2026-11-26 03:50:20,799 INFO midnight: all is well\n")
    assert "Failed" in summary(results)
    told = summary(results, succeeded=True)
    assert "Failed" not in told and "  Not made   1: model Random init at 112 px" in told.splitlines()


def test_what_other_configurations_left_is_not_shown(results: Path) -> None:
    few = Asked([], [], {"demo": ASKED.models["demo"]}, ["cls_mean"], ["bach"], "off")
    write_asked(results / "asked.json", few)
    text = summary(results)
    assert "Slides" not in text and "Random init" not in text and "cnsp" not in text and "MLflow" not in text


def test_a_tracking_server_is_named_without_its_password(results: Path) -> None:
    write_asked(results / "asked.json", Asked(tracking_uri="https://user:secret@mlflow.example/"))
    assert "  MLflow     https://…@mlflow.example/" in summary(results).splitlines()


def test_parts_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    write_slides(tmp_path / "slides", refused=("s03",))
    text = summary(tmp_path)
    assert "5 of 8 used" in text and "unavailable for now: HTTP 403" in text and "do: the next run tries again" in text
    assert "Scores" not in text


def test_a_broken_table_is_told_and_the_rest_shown(results: Path) -> None:
    (results / "slides" / "demo" / "0000.tsv").write_text("slide\tstatus\nx\tok\n")
    text = summary(results)
    assert "0000.tsv" in text and "Scores" in text


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match="no results of a run there"):
        summary(tmp_path)
    with pytest.raises(MidnightError, match="name a results_dir"):
        newest_results(tmp_path)


def test_an_older_form_of_what_was_asked_is_as_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"kohorts": []}', '{"models": {"a": 1}}'):
        (tmp_path / "asked.json").write_text(content)
        assert read_asked(tmp_path / "asked.json") is None
    write_asked(tmp_path / "asked.json", ASKED)
    assert read_asked(tmp_path / "asked.json") == ASKED


def test_the_command_takes_the_run_that_was_last(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parents[1])
    main(["summary"])
    assert capsys.readouterr().out.startswith("Summary of results/demo\n")
    main(["summary", str(results)])
    assert f"{results}/report.html" in capsys.readouterr().out


def test_slides_with_the_same_trouble_are_one_entry() -> None:
    reasons = [f"md5 mismatch: expected {i:032x}, got {i + 7:032x}" for i in range(50)]
    slides = [Quarantined("tcga", f"s{i}", "fetching", reason) for i, reason in enumerate(reasons)]
    slides += [Quarantined("tcga", "t", "tissue", "no tissue found")]
    first, second = troubles(slides)
    assert (len(first.slides), first.names) == (50, "s0, s1, s2 and 47 more")
    assert second.cure.startswith("look at tissue/tcga/qc.html")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("md5 mismatch: expected 1, got 2 (fetched again as a whole, with the same outcome)", DAMAGED),
        ("no resolution: the slide states neither mpp nor objective power; give mpp in a CSV: path,mpp", ""),
        ("cut short: a TIFF whose directory lies beyond its 5,000 bytes; copy or download it again", ""),
        ("not in a format that OpenSlide reads", "convert it to a pyramidal TIFF, or take it out of the folder"),
        ("something that nobody foresaw", ""),
    ],
)
def test_a_cure_is_added_only_where_the_reason_has_none(reason: str, expected: str) -> None:
    assert cure(reason, "demo") == expected
