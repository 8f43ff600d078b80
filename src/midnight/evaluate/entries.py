"""What an entry of `config/tasks.yaml` and of `config/models.yaml` may hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from midnight.config.fields import choose, key

POOLINGS = {"cls_mean": "CLS+Mean", "cls": "CLS"}
"""What people call the poolings."""


@dataclass(frozen=True)
class Scheduler:
    """The learning-rate schedule, always explicit: eva's own default is a third of the lr for five epochs."""

    name: Literal["CosineAnnealingLR", "PolynomialLR", "ConstantLR"] = key(doc="class of torch.optim.lr_scheduler")
    args: dict[str, float] = key(dict, "its arguments; its step is one epoch, as in eva")


@dataclass(frozen=True)
class Protocol:
    """How a head is fitted: budget, batch, optimiser (AdamW), early stopping, runs."""

    runs: int = key(doc="independent fits", minimum=1)
    batch_size: int = key(doc="training samples per step", minimum=1)
    lr: float = key(doc="AdamW's learning rate", exclusiveMinimum=0)
    weight_decay: float = key(doc="AdamW's weight decay; explicit, since its default is not stable", minimum=0)
    scheduler: Scheduler = key(doc="learning-rate schedule")
    patience: int = key(doc="validations without improvement before a fit stops", minimum=1)
    max_steps: int | None = key(None, "length of a fit in optimizer steps", minimum=1)
    max_epochs: int | None = key(None, "length of a fit in epochs", minimum=1)
    min_delta: float = key(0.0, "least improvement that counts", minimum=0)
    eval_batch_size: int | None = key(None, "samples per validation step; null = batch_size", minimum=1)
    validate_every: int = key(1, "epochs between validations", minimum=1)
    sanity_steps: int = key(2, "validation steps before training, as Lightning's default", minimum=0)
    shots: int | None = key(None, "tiles per class that each run draws afresh from the whole training set", minimum=1)


@dataclass(frozen=True)
class Dataset:
    """An image data set: the class that reads it and its arguments."""

    root: str = key(doc="sub-folder of evaluation.data_root")
    class_path: str = key("", "dotted name of the class (eva's or one of midnight.evaluate)")
    args: dict[str, Any] = key(
        dict, 'further arguments; a mapping with class_path (and init_args) becomes an object, "{root}" the folder'
    )
    splits: dict[str, str] = key(dict, "role (train, val, test): the class's name of that split")
    tables: list[str] = key(list, "tables of labels below root, named when something is missing in them")
    crop: Literal["resize-crop", "random-resized"] = key(
        "resize-crop", "training images: eva's ResizeAndCrop or random"
    )
    transforms_key: str = key("transforms", "name of the class's argument for transforms")


@dataclass(frozen=True)
class Perturbation:
    """How the scored images of a variant are changed; see midnight.evaluate.perturb."""

    hed_sigma: float = key(0.0, "strength of the stain shift: 0.05 is light, 0.2 strong", minimum=0, maximum=0.4)
    magnification: float = key(1.0, "factor: the central 1 / factor of each side is shown", minimum=1, maximum=4)

    @property
    def text(self) -> str:
        """In words, e.g. "stain σ 0.2, magnification × 1.25"."""
        stain = [f"stain σ {self.hed_sigma:g}"] if self.hed_sigma else []
        return ", ".join(stain + ([f"magnification × {self.magnification:g}"] if self.magnification > 1 else []))


@dataclass(frozen=True)
class Variant:
    """A tile task's scored images perturbed: heads are fitted and chosen as in that task; all else is its own."""

    variant_of: str = key(doc="a tile task")
    perturb: Perturbation = key(doc="what is done to the images of the split that it scores")


@dataclass(frozen=True)
class Task:
    """One downstream task."""

    kind: Literal["tile", "slide", "segmentation", "hest", "folder"] = key(doc="which code runs it")
    label: str = key(doc="name for people")
    column: str = key(doc="column of the paper's Table 2")
    metric: str = key(doc="metric's name in eva's results (hest: PearsonCorrelation)")
    scored: Literal["val", "test"] = key(doc="split whose metric is reported")
    dataset: Dataset = key(doc="the images")
    classes: int = key(1, "outputs of the head; 1 = binary", minimum=1)
    max_tiles: int | None = key(None, "slide tasks: tiles per slide", minimum=1)
    ignore_index: int | None = key(None, "segmentation: class that is left out", minimum=0)
    data: Literal["real", "demo"] = key("real", "demo: generated stand-ins")
    source: str = key("", "where the data are found")
    licence: str = key("", "their licence")
    protocols: dict[str, Protocol] = key(dict, "protocol: values; hest tasks have none, their probe is fixed")
    name: str = key("", "the entry's name; filled in by the loader")
    protocol: str = key("", "the protocol in use; filled in by select_tasks")
    variant_of: str = key("", "the task that this is a variant of; filled in by the loader, see Variant")
    perturb: Perturbation | None = key(None, "filled in by the loader, see Variant")

    @property
    def values(self) -> Protocol:
        """The values of the protocol in use."""
        return self.protocols[self.protocol]

    @property
    def roles(self) -> list[str]:
        """The splits that a fit reads."""
        splits = {"val": ["train", "val"], "test": ["train", "val", "test"]}
        return choose(self.scored, splits, f"tasks.{self.name}.scored")

    @property
    def is_own(self) -> bool:
        """Whether it is of the configuration (`evaluation.folders`) rather than of config/tasks.yaml."""
        return self.kind == "folder" and Path(self.dataset.root).is_absolute()

    @property
    def monitor(self) -> str:
        """The metric that early stopping and the choice of the best checkpoint watch: always on `val`."""
        return f"val/{self.metric}"


@dataclass(frozen=True)
class Model:
    """One model to evaluate."""

    source: Literal["run", "init", "eva", "timm", "dir", "weights", "random", "colour"] = key(
        doc="run: trained here; init: a run's random init; eva: eva's registry; timm: a timm name; dir: an export; "
        "weights: a file or folder of DINOv2's hub, timm, Hugging Face or this project; random: random init of the "
        "same; colour: statistics of colours, no network"
    )
    label: str = key(doc="name for people")
    sizes: list[int] = key(doc="input sizes, px", minimum=14, minItems=1)
    run: str | None = key(None, "run and init: the run of the configuration")
    model_name: str | None = key(None, "eva and timm: the registry's name")
    repo: str | None = key(None, "eva and timm: Hugging Face repository, under which local copies are looked for")
    path: str | None = key(None, "dir: folder with teacher.safetensors and model.json; weights, random: see source")
    arch: str | None = key(None, "weights, random: timm's name of the architecture, where the folder does not say it")
    kwargs: dict[str, Any] = key(dict, "eva, timm, weights, random: arguments of the model's constructor")
    mean: tuple[float, float, float] | None = key(
        None, "normalisation; run, init, dir take it from model.json, weights and random from their folder if it has it"
    )
    std: tuple[float, float, float] | None = key(None, "normalisation", exclusiveMinimum=0)
    registers: int = key(
        0, "register tokens between CLS and patches; of all but eva and timm the files say it", minimum=0
    )
    published: str | None = key(None, "row of the published tables that this model corresponds to")
    gate: str | None = key(None, "page where the weights are asked for, if they need a licence or token")
    licence: str = key("", "licence of the weights")
    data: Literal["real", "demo"] = key("real", "demo: trained on generated slides")
    name: str = key("", "the entry's name; filled in by the loader")
