import re
from pathlib import Path

from midnight.screen.board import Board
from midnight.screen.demo_times import SECONDS, START
from midnight.screen.stages import STAGES, TARGETS, count_stages, stage_of

RULES = Path(__file__).resolve().parents[2] / "rules"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def board(cores: int | None = 2, **jobs: int) -> tuple[Board, Clock]:
    clock = Clock()
    made = Board(clock)
    made.cores = cores
    made.plan(jobs | {"total": sum(jobs.values())})
    return made, clock


def test_every_rule_has_a_stage() -> None:
    rules = set(
        re.findall(r"^\s*(?:rule|checkpoint) (\w+):", "\n".join(p.read_text() for p in RULES.glob("*.smk")), re.M)
    )
    known = {rule for rules_ in STAGES.values() for rule in rules_}
    assert rules - known <= set(TARGETS)
    assert known <= rules
    assert stage_of("of_somebody_else") == "other"


def test_the_plan_counts_stages_in_order() -> None:
    made, _ = board(report=1, train=2, fetch_slides=3, all=1)
    assert made.total == 7
    assert made.plan({"report": 1, "train": 2, "all": 1, "total": 4}) == "4 jobs: training 2, report 1"
    assert list(count_stages({"report": 1, "fetch_slides": 1})) == ["slides", "report"]


def test_what_ran_before_in_this_run_says_what_is_left() -> None:
    made, clock = board(fetch_slides=3)
    made.start(1, "fetch_slides", "Fetching", ["a"], threads=2)
    clock.now = 120.0
    assert made.end(1) is not None
    assert made.left() == (240.0, [])
    assert made.time_left() == "about 4 min left in all"


def test_jobs_that_share_the_cores_take_half_the_time() -> None:
    made, clock = board(fetch_slides=5)
    made.start(1, "fetch_slides", None, ["a"], threads=1)
    clock.now = 100.0
    made.end(1)
    assert made.left() == (200.0, [])


def test_what_is_not_known_is_named_and_not_guessed() -> None:
    made, clock = board(segment_tissue=2, train=1, report=1)
    assert made.time_left() == ""
    made.start(1, "segment_tissue", None, ["a"], threads=2)
    clock.now = 60.0
    made.end(1)
    assert made.time_left() == "about 1 min left, not counting training, report"


def test_an_earlier_run_s_times_are_taken(tmp_path: Path) -> None:
    for name, seconds in {"train/demo": 100, "report": 20}.items():
        path = tmp_path / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t-\n")
    made, clock = board(cores=1, train=1, report=1)
    made.remember(str(tmp_path / "benchmarks" / "train" / "demo.tsv"))
    made.start(1, "train", None, ["models/demo/teacher.safetensors"])
    clock.now = 40.0
    assert made.left() == (80.0, [])
    clock.now = 500.0
    assert made.left() == (20.0, []), "a job that takes longer than before is not owed time"


def test_where_jobs_run_elsewhere_no_total_is_claimed() -> None:
    made, clock = board(cores=None, fetch_slides=2)
    made.start(1, "fetch_slides", None, ["a"])
    clock.now = 100.0
    made.end(1)
    assert made.time_left() == ""


def test_a_failed_job_is_planned_again_only_where_it_is_tried_again() -> None:
    made, _ = board(train=1)
    made.start(1, "train", "Training demo", ["models/demo/teacher.safetensors"])
    assert made.end(1, well=False) is not None
    assert (made.done, made.planned["train"]) == (0, 0)
    again = made.again(1)
    assert again is not None and again.title == "Training demo"
    assert made.planned["train"] == 1
    assert made.again(99) is None and made.end(99) is None


def test_the_training_leads_the_status_line(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "demo"
    folder.mkdir(parents=True)
    made, clock = board(train=1, draw_cohort=1)
    made.start(1, "draw_cohort", "Drawing tiles", ["x.png"])
    made.start(2, "train", "Training demo", [str(folder / "teacher.safetensors")])
    clock.now = 12.0
    assert made.status() == "[0/2] report: Drawing tiles (12 s) + 1 more"
    (folder / "config.yaml").write_text("recipe: {training: {iterations: 60}}\n")
    (folder / "metrics.jsonl").write_text('{"step": 30, "seconds": 90, "images_per_s": 21.4}\n')
    made.look()
    assert made.status().startswith(
        "[0/2] training: Training demo, step 30 of 60, 21.4 images/s, 1 min 30 s left + 1 more"
    )


def test_the_demo_s_first_run_has_a_guess_that_follows_this_machine() -> None:
    made, clock = board(demo_slides=1, train=2)
    usual = SECONDS["train"] + START
    assert made.expected("train") == usual
    made.start(1, "demo_slides", None, ["a"], threads=2)
    clock.now = 2 * (SECONDS["demo_slides"] + START)
    made.end(1)
    assert made.expected("train") == 2 * usual
    made.start(2, "train", None, ["models/demo/x"], threads=2)
    clock.now += 50.0
    made.end(2)
    assert made.left() == (50.0, [])
    assert made.expected("of_somebody_else") is None


def test_only_the_demo_is_guessed() -> None:
    made, _ = board(train=2, report=1)
    assert made.expected("train") is None


def test_every_rule_of_the_demo_has_a_guess() -> None:
    others = {"fetch_again", "tried_again", "list_tiles", "plan_tiles", "draw_tiles", "join_tiles", "prepare_task"}
    others |= set(STAGES["features"])
    assert set(SECONDS) == {rule for rules in STAGES.values() for rule in rules} - others
