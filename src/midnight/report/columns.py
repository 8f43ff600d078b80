"""The thirteen columns of the paper's Table 2, in its order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: key in records and CSVs, heading in Table 2, heading in Table A1, metric."""

    key: str
    short: str
    long: str
    metric: str


BALANCED = "balanced accuracy"
DICE = "Dice score, no background"

COLUMNS = (
    Column("pc10", "pc10", "PCam (10 shots)", BALANCED),
    Column("bach", "bach", "BACH", BALANCED),
    Column("brcs", "brcs", "BRACS", BALANCED),
    Column("bkhs", "bkhs", "BreaKHis", BALANCED),
    Column("crc", "crc", "CRC-100K", BALANCED),
    Column("glsn", "glsn", "Gleason", BALANCED),
    Column("mhst", "mhst", "MHIST", BALANCED),
    Column("pc", "pc", "PCam", BALANCED),
    Column("c16", "c16", "Cam16 (small)", BALANCED),
    Column("pnd", "pnd", "Panda (small)", BALANCED),
    Column("cnsp", "cnsp", "CoNSeP", DICE),
    Column("mnsc", "mnsc", "MoNuSAC", DICE),
    Column("hest", "HEST", "HEST", "Pearson correlation, mean of the tasks"),
)
KEYS = tuple(column.key for column in COLUMNS)
BY_KEY = {column.key: column for column in COLUMNS}
HEST = "hest"
HEST_TASKS = 9
