"""Times as a person reads them; light, since every process of Snakemake imports it."""


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `5 h 03 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def roughly(seconds: float) -> str:
    """For an estimate: `less than 1 min`, `about 12 min`, `about 2 h 10 min`, `about 3 d 4 h`."""
    if seconds < 60:
        return "less than 1 min"
    if seconds < 3600:
        return f"about {round(seconds / 60)} min"
    return "about " + duration(round(seconds / 600) * 600)
