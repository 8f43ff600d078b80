from pathlib import Path

from midnight.report.walltime import read_walltimes
from tests.report.example import write_benchmarks


def test_jobs_are_summed_per_rule_longest_first(tmp_path: Path) -> None:
    times = read_walltimes(write_benchmarks(tmp_path))
    assert [(time.rule, time.jobs) for time in times] == [("train", 2), ("tissue", 1), ("report", 1)]
    assert (times[0].seconds, times[0].longest, times[0].max_rss) == (91.2 + 44.0, 91.2, 830.1)
    assert times[2].max_rss is None


def test_cells_that_were_not_measured_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("s\tmax_rss\nNA\t-\nnan\t1\n2.5\tnan\n")
    (time,) = read_walltimes(tmp_path)
    assert (time.jobs, time.seconds, time.max_rss) == (1, 2.5, None)


def test_no_folder_no_times(tmp_path: Path) -> None:
    assert read_walltimes(None) == []
    assert read_walltimes(tmp_path / "absent") == []
