"""BreaKHis: PNGs by type, patient and magnification; eva takes four types at 40X and splits by patient. Full counts."""

from pathlib import Path

from tests.evaluate.standins.pixels import Links, spread

TYPES = {"TA": "tubular_adenoma", "MC": "mucinous_carcinoma", "F": "fibroadenoma", "DC": "ductal_carcinoma"}
VAL_PATIENTS = {
    "TA": ("16184CD", "21998CD", "23060CD"),
    "MC": ("18842D", "19979", "21998EF"),
    "F": ("3909", "5287", "16716", "5695"),
    "DC": ("15275", "15792", "16875", "2773"),
}
TRAIN, VAL = 1132, 339


def write_breakhis(root: Path) -> dict[str, dict[int, int]]:
    """Write the 1,471 images that eva takes, and others that it must leave out."""
    links = Links(root / "BreaKHis_v1" / "histology_slides" / "breast", ".png", 4)
    truth: dict[str, dict[int, int]] = {"train": {}, "val": {}}
    for number, name in enumerate(TYPES):
        for split, total in (("train", TRAIN), ("val", VAL)):
            truth[split][number] = spread(total, 4)[number]
            patients = VAL_PATIENTS[name] if split == "val" else tuple(f"{number}{index:04d}" for index in range(5))
            for patient, n in zip(patients, spread(truth[split][number], len(patients)), strict=True):
                _write_patient(links, name, patient, "40", n, number)
        _write_patient(links, name, VAL_PATIENTS[name][0], "100", 2, number)
    _write_patient(links, "A", "22549AB", "40", 3, 0)
    return truth


def _write_patient(links: Links, name: str, patient: str, magnification: str, n: int, number: int) -> None:
    kind = "M" if name in ("MC", "DC") else "B"
    side = "malignant" if kind == "M" else "benign"
    folder = f"{side}/SOB/{TYPES.get(name, 'adenosis')}/SOB_{kind}_{name}_14-{patient}/{magnification}X"
    for index in range(1, n + 1):
        links.write(f"{folder}/SOB_{kind}_{name}-14-{patient}-{magnification}-{index:03d}.png", number)
