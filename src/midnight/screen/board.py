"""What is known of a run: its jobs, how long they take, what is left."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from midnight.clock import duration, roughly
from midnight.report.walltime import read_walltimes
from midnight.screen import demo_times
from midnight.screen.stages import TARGETS, count_stages, stage_of
from midnight.screen.training import Progress, Watch

BENCHMARKS = re.compile(r"^(.*\bbenchmarks)/")


@dataclass
class RuleJob:
    """A job that was started; `seconds` is what it took the time before."""

    number: int
    rule: str
    title: str
    started: float
    threads: int = 1
    watch: Watch | None = None
    progress: Progress | None = field(default=None, compare=False)

    @property
    def shown(self) -> bool:
        """Whether it does something that a person wants to hear of."""
        return self.rule not in TARGETS


class Board:
    """Counts and times of a run's jobs; the caller sees to it that one thread at a time uses it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.cores: int | None = None  # None: jobs run elsewhere
        self.done = self.total = 0
        self.demo = False  # one that runs for the first time
        self.planned: Counter[str] = Counter()  # jobs by rule, which are not started yet
        self.running: dict[int, RuleJob] = {}
        self.ended: dict[int, RuleJob] = {}
        self.threads: dict[str, int] = {}
        self.took: dict[str, list[float]] = {}  # seconds of this run's jobs by rule
        self.before: dict[str, float] = {}  # mean seconds of an earlier run's

    def plan(self, jobs: Mapping[str, int]) -> str:
        """Take the numbers of jobs by rule; the line that says so."""
        self.planned = Counter({rule: count for rule, count in jobs.items() if rule != "total"})
        self.demo = demo_times.is_demo(jobs)
        self.total = sum(self.planned.values())
        stages = ", ".join(f"{stage} {count}" for stage, count in count_stages(self.planned).items())
        return f"{self.total} job{'s' * (self.total != 1)}: {stages}" if stages else ""

    def counted(self, done: int, total: int) -> None:
        """Take Snakemake's own count, which grows where jobs are planned on the way."""
        self.done, self.total = done, total

    def start(self, number: int, rule: str, message: str | None, output: Iterable[str], threads: int = 1) -> RuleJob:
        """A job begins."""
        title = (message or rule).strip().splitlines()[0]
        job = RuleJob(number, rule, title, self.clock(), threads)
        weights = [Path(path) for path in output if Path(path).name == "teacher.safetensors"]
        if rule == "train" and weights:
            job.watch = Watch(weights[0].parent)
        self.running[number], self.threads[rule] = job, threads
        self.planned[rule] -= self.planned[rule] > 0
        return job

    def remember(self, benchmark: str | None) -> None:
        """Look once how long an earlier run's jobs took, by the path of any job's benchmark file."""
        found = BENCHMARKS.match(benchmark or "")
        if found and not self.before:
            times = read_walltimes(Path(found[1]))
            self.before = {time.rule: time.seconds / time.jobs for time in times}

    def end(self, number: int, well: bool = True) -> tuple[RuleJob, float] | None:
        """A job has ended; how long it took. None for one that never began."""
        job = self.running.pop(number, None)
        if job is None:
            return None
        seconds = self.clock() - job.started
        self.ended[number] = job
        if well:
            self.done += 1
            self.took.setdefault(job.rule, []).append(seconds)
        return job, seconds

    def again(self, number: int) -> RuleJob | None:
        """A job that failed is to be started once more."""
        job = self.ended.get(number)
        if job is not None:
            self.planned[job.rule] += 1
        return job

    def look(self) -> None:
        """Read how far the trainings are."""
        for job in self.running.values():
            if job.watch is not None:
                job.progress = job.watch.progress() or job.progress

    def expected(self, rule: str) -> float | None:
        """Seconds of one job of a rule, from this run's, else an earlier run's; None where there was none."""
        took = self.took.get(rule)
        if took or rule in self.before:
            return sum(took) / len(took) if took else self.before[rule]
        return demo_times.guess(rule, self.took) if self.demo else None

    def left(self) -> tuple[float, list[str]]:
        """Seconds that the jobs of this machine still take, and the stages of those of which that is not known."""
        unknown: set[str] = set()
        longest = work = 0.0
        for job in self.running.values():
            seconds = self._rest(job)
            if seconds is None:
                unknown.add(stage_of(job.rule))
            longest, work = max(longest, seconds or 0), work + (seconds or 0) * self._share(job.rule)
        for rule, count in self.planned.items():
            expected = self.expected(rule)
            if count and rule not in TARGETS and expected is None:
                unknown.add(stage_of(rule))
            work += count * (expected or 0) * self._share(rule)
        return max(longest, work), [stage for stage in count_stages(self.planned + self._started()) if stage in unknown]

    def _started(self) -> Counter[str]:
        return Counter(job.rule for job in self.running.values())

    def _rest(self, job: RuleJob) -> float | None:
        if job.progress is not None and job.progress.seconds_left is not None:
            return job.progress.seconds_left
        if job.rule in TARGETS:
            return 0.0
        expected = self.expected(job.rule)
        return None if expected is None else max(0.0, expected - (self.clock() - job.started))

    def _share(self, rule: str) -> float:
        """Of the machine that a job takes."""
        cores = self.cores or 1
        return min(self.threads.get(rule, 1), cores) / cores

    def count(self) -> str:
        """`[5/21]`."""
        width = len(str(self.total))
        return f"[{self.done:{width}}/{self.total}]"

    def time_left(self) -> str:
        """`about 4 min left in all`, `about 2 min left, not counting report`; empty where little is known."""
        if self.cores is None or not (self.running or any(self.planned.values())):
            return ""
        seconds, unknown = self.left()
        if not unknown:
            return f"{roughly(seconds)} left in all"
        return f"{roughly(seconds)} left, not counting {', '.join(unknown)}" if seconds >= 60 else ""

    def status(self) -> str:
        """What goes on, on one line: the training first."""
        jobs = sorted((job for job in self.running.values() if job.shown), key=lambda job: job.progress is None)
        if not jobs:
            return ""
        first = jobs[0]
        doing = f"{stage_of(first.rule)}: {first.title}"
        doing += f", {first.progress}" if first.progress else f" ({duration(self.clock() - first.started)})"
        more = f" + {len(jobs) - 1} more" if len(jobs) > 1 else ""
        left = self.time_left()
        return f"{self.count()} {doing}{more}{f' | {left}' if left else ''}"
