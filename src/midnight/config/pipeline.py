"""The pipeline's configuration: `config/config.yaml`, `demo.yaml`, `local.yaml`."""

from dataclasses import dataclass
from typing import Any, Literal

from midnight.config.fields import choose, key
from midnight.config.recipe import HsvFilter


@dataclass(frozen=True)
class Gdc:
    """The Genomic Data Commons, or a service that speaks its protocol."""

    api: str = key("https://api.gdc.cancer.gov", "base URL; $VARIABLES are expanded")
    token_file: str | None = key(None, "file with a token for controlled data; never logged")
    parallel: int = key(8, "downloads at a time per job", minimum=1)
    retries: int = key(8, "attempts per file, with growing pauses", minimum=1)
    backoff: float = key(1.0, "first pause, seconds; doubles, with jitter", minimum=0)
    timeout: float = key(60.0, "seconds without a byte before an attempt fails", exclusiveMinimum=0)
    least_rate: float = key(10_000.0, "bytes/s that a download must bring over every `timeout` seconds", minimum=0)
    page_size: int = key(2000, "rows per /files request", minimum=1)
    filters: dict[str, list[str]] = key(
        lambda: {
            "cases.project.program.name": ["TCGA"],
            "experimental_strategy": ["Diagnostic Slide"],
            "data_type": ["Slide Image"],
            "data_format": ["SVS"],
        },
        "field: allowed values; all must hold",
    )


@dataclass(frozen=True)
class Cohort:
    """Where a cohort's slides come from."""

    source: Literal["gdc", "local"] = key(doc="gdc: query and download; local: a folder or CSV of slides")
    path: str | None = key(None, "local: folder, one slide, or CSV with a column `path` (and optionally slide_id, mpp)")
    manifest: str | None = key(None, "gdc: a pinned manifest (GDC's own or ours) instead of a query")
    exclude: str | None = key(None, "CSV with columns file_id (or slide_id) and reason: slides left out")
    limit: int | None = key(None, "only the first N slides of the sorted manifest", minimum=1)


@dataclass(frozen=True)
class Otsu:
    """Otsu's threshold on saturation, with ink removed."""

    blur_um: float = key(16.0, "median blur before the threshold, µm", minimum=0)


@dataclass(frozen=True)
class Tissue:
    """Tissue masks on thumbnails."""

    segmenter: Literal["hsv", "otsu"] = key("hsv", "how tissue is found")
    mpp: float = key(8.0, "µm per mask pixel, about", exclusiveMinimum=0)
    hsv: HsvFilter = key(HsvFilter, "ranges of tissue pixels (min_fraction is not used)")
    otsu: Otsu = key(Otsu, "settings of the otsu segmenter")
    close_um: float = key(40.0, "closing of the mask, µm", minimum=0)
    min_area_mm2: float = key(0.02, "pieces and holes smaller than this are removed", minimum=0)
    workers: int = key(4, "slides segmented at a time per job", minimum=1)


@dataclass(frozen=True)
class Draw:
    """Drawing tiles beforehand, for recipes with `tiles.predrawn`."""

    tiles_per_shard: int = key(10_000, "tiles per tar file: what a killed job may lose", minimum=1)
    shards_per_job: int = key(100, "shards that one job draws", minimum=1)
    workers: int = key(4, "processes per job", minimum=1)


@dataclass(frozen=True)
class Run:
    """One training run: a recipe on a mixture of cohorts."""

    recipe: str = key(doc="file of config/recipes/ without .yaml")
    cohorts: dict[str, float] = key(dict, "cohort: share of the tiles", exclusiveMinimum=0)
    tile_folders: dict[str, float] = key(
        dict, "instead of cohorts: entry of tile_folders: share of the tiles", exclusiveMinimum=0
    )
    override: dict[str, Any] = key(dict, "recipe keys to change, nested as in the recipe")

    def __post_init__(self) -> None:
        """One order of the data, whatever the file's: tiles are drawn in it, and rules pair names with files by it."""
        for name in ("cohorts", "tile_folders"):
            object.__setattr__(self, name, dict(sorted(getattr(self, name).items())))


@dataclass(frozen=True)
class Demo:
    """The generator of demo slides and demo benchmarks."""

    slides: int = key(8, "slides, of which the last two are damaged on the way", minimum=3)
    size: int = key(6144, "side of a slide, px", minimum=1024)
    benchmark_scale: float = key(1.0, "size of the demo benchmarks, 1 = as in config/tasks.yaml", exclusiveMinimum=0)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, how."""

    models: list[str] | Literal["all"] | None = key(
        None, "entries of config/models.yaml; all: the published ones and those of the runs; null: all without weights"
    )
    tasks: list[str] | Literal["all"] | None = key(
        None, "entries of config/tasks.yaml; all: the paper's; null: the folders, or without any all"
    )
    folders: dict[str, str] = key(
        dict, "tasks of your own by name: a folder of labelled images, or a CSV with path, label[, split][, group]"
    )
    protocol: str = key("paper", "protocol of config/tasks.yaml: paper, eva-default, demo, …")
    sizes: list[int] = key(list, "input sizes, px; empty = each model's own", minimum=14)
    poolings: list[Literal["cls", "cls_mean"]] = key(lambda: ["cls", "cls_mean"], "CLS, CLS+Mean")
    weights: dict[str, Any] = key(
        dict,
        "models of your own beside `models`, name: path, or keys of config/models.yaml (path, sizes, mean, std, arch); "
        "without a key `source` also the same architecture at random init, as NAME-random",
    )
    weights_dir: str | None = key(None, "folder of downloaded weights of registry models; see config/README.md")
    data_root: str = key("data/benchmarks", "folder of the downstream data sets")
    download: bool = key(True, "download data sets that need no form, account or accepted terms")
    batch_size: int = key(64, "images per forward pass", minimum=1)
    workers: int = key(8, "image-decoding threads; the embed rule reserves as many cores", minimum=0)
    accelerator: Literal["auto", "cpu", "gpu"] = key("auto", "where models and heads compute")


@dataclass(frozen=True)
class Features:
    """Features of whole slides for multiple-instance learning: one HDF5 file per slide and model."""

    models: list[str] = key(list, "entries of config/models.yaml; empty: none are made")
    mpp: float = key(0.5, "µm/px of the tiles", exclusiveMinimum=0)
    size: int = key(224, "side of a tile and of the model's input, px", minimum=14)
    overlap: int = key(0, "px that neighbouring tiles share", minimum=0)
    pooling: Literal["cls", "cls_mean"] = key("cls", "what is kept of a tile: CLS, or CLS and the patches' mean")
    foreground: float = key(0.4, "least share of tissue in a tile", minimum=0, maximum=1)


@dataclass(frozen=True)
class Mlflow:
    """Experiment tracking; a dead server never stops training."""

    tracking_uri: str | None = key(None, "null: sqlite below results_dir; 'off': none")
    experiment: str = key("midnight", "experiment's name")


def is_generated(data: str) -> bool:
    """Whether a key `data` says that the data are not real."""
    return choose(data, {"real": False, "demo": True}, "data")


@dataclass(frozen=True)
class Config:
    """The whole pipeline."""

    results_dir: str = key("results", "what the rules write")
    data_dir: str = key("data", "raw slides")
    data: Literal["real", "demo"] = key("real", "demo: generated data, marked as such everywhere")
    seed: int = key(0, "of splits and samples outside training", minimum=0)
    shard_size: int = key(64, "slides per job, on average", minimum=1)
    cohorts: dict[str, Cohort] = key(dict, "name: source; none where only weights are evaluated")
    tile_folders: dict[str, str] = key(
        dict, "name: folder of images, or of WebDataset tars, to train on without slides"
    )
    gdc: Gdc = key(Gdc, "the GDC service")
    tissue: Tissue = key(Tissue, "tissue masks")
    draw: Draw = key(Draw, "tiles drawn beforehand")
    runs: dict[str, Run] = key(dict, "training runs by name")
    evaluation: Evaluation = key(Evaluation, "models, tasks, protocol")
    features: Features = key(Features, "features of all cohorts' slides for multiple-instance learning")
    mlflow: Mlflow = key(Mlflow, "experiment tracking")
    demo: Demo | None = key(None, "only in config/demo.yaml")
