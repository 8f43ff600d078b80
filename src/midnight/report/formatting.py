"""Numbers as text for the page. An unknown value is a dash, never NaN."""

import math
import re

from midnight import clock

ABSENT = "–"
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


def number(value: float, digits: int = 3) -> str:
    """As the paper prints it: `.803`, `1.000`, `−.012` (with a minus sign)."""
    text = f"{abs(value):.{digits}f}"
    text = text[1:] if text.startswith("0.") else text
    return f"−{text}" if value < 0 and float(f"{value:.{digits}f}") != 0 else text


def score(value: float | None, digits: int = 3) -> str:
    """As the paper prints scores; a dash when there is none."""
    return ABSENT if value is None or not math.isfinite(value) else number(value, digits)


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign: `+.123`, `−.010`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = number(value, digits)
    return text if text.startswith("−") else f"+{text}"


def size(count: int) -> str:
    """Bytes in decimal units: `12.9 TB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def duration(seconds: float | None) -> str:
    """See `midnight.clock.duration`; a dash when it is not known."""
    return ABSENT if seconds is None or not math.isfinite(seconds) else clock.duration(seconds)


def without_credentials(text: str) -> str:
    """`text` with user names and passwords cut out of URLs."""
    return CREDENTIALS.sub("…@", text)
