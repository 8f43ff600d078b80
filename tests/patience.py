"""Waiting without time: a clock that only the sleeper moves."""

from collections.abc import Callable, Sequence

from midnight.outages import Patience


class Time:
    """Seconds that pass when somebody sleeps; `then` is called after each sleep with the time."""

    def __init__(self, then: Callable[[float], None] = lambda now: None) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.then = then

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.then(self.now)

    def patience(self, limit: float = 600.0, files: Sequence[str] = ()) -> Patience:
        return Patience(limit, files, self.sleep, lambda: self.now)
