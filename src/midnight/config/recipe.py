"""A training recipe: one YAML of `config/recipes/`, every key with its default and its source.

Sources: [P] the Midnight paper (arXiv 2504.05186), [K] Kaiko-FM (2404.15217), [V2] Virchow2 (2408.00738),
[D2] DINOv2 (2304.07193), [T] Tellez et al. 2019; [our choice] where none of them states a value.
"""

from dataclasses import dataclass
from typing import Any, Literal

from midnight.config.fields import choose, key


@dataclass(frozen=True)
class HsvFilter:
    """A tile passes when at least `min_fraction` of its pixels lie in all three ranges (OpenCV's 8-bit HSV)."""

    hue: tuple[int, int] = key((90, 180), "inclusive, 0-180 [P, V2]", minimum=0, maximum=180)
    saturation: tuple[int, int] = key((8, 255), "inclusive, 0-255 [P, V2]", minimum=0, maximum=255)
    value: tuple[int, int] = key((103, 255), "inclusive, 0-255 [P, V2]", minimum=0, maximum=255)
    min_fraction: float = key(0.6, "share of the tile's pixels [P, V2]", minimum=0, maximum=1)


@dataclass(frozen=True)
class Predrawn:
    """A fixed set of distinct tiles, drawn once onto disk; `midnight tiles plan` says what it takes.

    Its draws are independent, whatever `tiles_per_read`.
    """

    count: int = key(doc="tiles; no two of the same slide, mpp and place", minimum=1)
    format: Literal["jpeg", "png"] = key("jpeg", "png is lossless, and about 6 times as large [our choice]")
    quality: int = key(90, "of JPEG [our choice]", minimum=1, maximum=100)
    seed: int = key(0, "of the draws; the run's own seed shuffles them", minimum=0)


@dataclass(frozen=True)
class Tiles:
    """Which tiles are drawn from the slides."""

    size: int = key(256, "side of a tile, px [P]", exclusiveMinimum=0)
    mpps: tuple[float, ...] = key((0.25, 0.5, 1.0, 2.0), "target µm/px [P]", exclusiveMinimum=0, minItems=1)
    mpp_weights: tuple[float, ...] | None = key(None, "weight of each mpp; uniform if null [our choice]", minimum=0)
    foreground: float = key(0.4, "least share of tissue in a tile [P]", minimum=0, maximum=1)
    hsv_filter: HsvFilter | None = key(HsvFilter, "tile filter; null switches it off [P]")
    hed_sigma: float = key(0.05, "strength of the HED augmentation, 0 = off [T: light; our choice]", minimum=0)
    upsample: bool = key(False, "draw mpps finer than the slide has, by upsampling [our choice]")
    slide_weights: Literal["uniform", "area"] = key("uniform", "slides equally or by tissue area [our choice]")
    max_open_slides: int = key(
        128, "slides per worker with an open file; of those read through OpenSlide at most 16", minimum=1
    )
    max_damaged: float = key(
        0.5, "share of a slide's probed positions that can't be decoded; with more it is left out", minimum=0, maximum=1
    )
    damage_probes: int = key(32, "positions probed on a slide when one can't be decoded [our choice]", minimum=1)
    patience: float = key(
        600.0, "seconds in all that a process waits for slides that are away for the moment [our choice]", minimum=0
    )
    tiles_per_read: int = key(1, "tiles from one larger read; 1: independent draws [our choice]", minimum=1)
    read_side: int | None = key(None, "side of such a read, px at the drawn mpp; null: 2 · size", minimum=1)
    predrawn: Predrawn | None = key(None, "null: tiles are drawn from the slides while training [P: online patching]")


@dataclass(frozen=True)
class Crops:
    """Multi-crop views of a tile and their photometric augmentation."""

    global_size: int = key(224, "side of the two global crops, px [P]", exclusiveMinimum=0)
    local_size: int = key(98, "side of a local crop, px [P]", exclusiveMinimum=0)
    n_local: int = key(8, "local crops per tile [D2]", minimum=0)
    global_scale: tuple[float, float] = key((0.32, 1.0), "area range of a global crop [D2]", minimum=0, maximum=1)
    local_scale: tuple[float, float] = key((0.05, 0.32), "area range of a local crop [D2]", minimum=0, maximum=1)
    jitter: tuple[float, float, float, float] = key(
        (0.4, 0.4, 0.2, 0.1), "brightness, contrast, saturation, hue [D2]", minimum=0
    )
    jitter_p: float = key(0.8, "probability of colour jitter [D2]", minimum=0, maximum=1)
    grayscale_p: float = key(0.0, "probability of grey (DINOv2: .2; off for H&E [our choice])", minimum=0, maximum=1)
    blur_p: tuple[float, float, float] = key(
        (0.0, 0.9, 0.5),
        "blur: first global, second global, locals, as [D2]'s code runs: it blurs with 1 - p of its 1.0, 0.1, 0.5",
        minimum=0,
        maximum=1,
    )
    solarize_p: float = key(0.2, "solarize on the second global [D2]", minimum=0, maximum=1)
    flips: bool = key(True, "horizontal and vertical flips [our choice]")
    rotations: bool = key(True, "rotations by multiples of 90° [our choice]")
    mean: tuple[float, float, float] = key((0.5, 0.5, 0.5), "normalisation mean, of pixels from 0 to 1 [K]")
    std: tuple[float, float, float] = key((0.5, 0.5, 0.5), "normalisation standard deviation [K]", exclusiveMinimum=0)


@dataclass(frozen=True)
class Backbone:
    """The vision transformer: a timm model name and how it starts."""

    arch: str = key("vit_giant_patch14_dinov2", "timm model name [P: ViT-g/14]")
    kwargs: dict[str, Any] = key(dict, "further arguments of timm.create_model (depth, embed_dim, patch_size, …)")
    drop_path: float = key(
        0.4, "stochastic depth of the student, the same in each block [D2: .3; .4 for ViT-g]", minimum=0, maximum=1
    )
    layer_scale: float | None = key(None, "LayerScale at init; null keeps timm's. 1.0 from scratch", exclusiveMinimum=0)
    pos_interpolation: Literal["offset", "antialias"] = key(
        "offset",
        "how crops of other sizes read the position table. offset: bicubic, not antialiased, 0.1 patches off [D2]; "
        "antialias: as timm, eva, [OM] and DINOv2's models with registers",
    )
    init: str = key("random", "random, pretrained (timm's), run:NAME (its teacher) or a file in hub/timm/HF layout")


@dataclass(frozen=True)
class Heads:
    """Projection heads of DINO and iBOT."""

    prototypes: int = key(65536, "prototypes per head [D2; 131072 for ViT-g]", minimum=2)
    hidden: int = key(2048, "width of the MLP [D2]", minimum=1)
    bottleneck: int = key(256, "width before the prototypes [D2; 384 for ViT-g's DINO head]", minimum=1)
    ibot_bottleneck: int | None = key(None, "of iBOT's own head, if not `bottleneck` [D2: 256]", minimum=1)
    prototype_length: Literal["trained", "fixed"] = key(
        "trained", "trained and decayed, from 1 on [D2]; fixed at 1: logits are cosines [DINO]"
    )
    layers: int = key(3, "layers of the MLP [D2]", minimum=1)
    shared: bool = key(False, "one head for DINO and iBOT; [D2: two for ViT-g]")


@dataclass(frozen=True)
class Loss:
    """Weights and temperatures of the objective: DINO + iBOT + regularizer."""

    dino: float = key(1.0, "weight of DINO [D2]", minimum=0)
    ibot: float = key(1.0, "weight of iBOT [D2]", minimum=0)
    regularizer: Literal["kde", "koleo", "none"] = key("kde", "[P, V2]: kde; [D2]: koleo")
    regularizer_weight: float = key(0.05, "[V2]: .05; [D2] KoLeo: .1", minimum=0)
    kde_kappa: float = key(5.0, "concentration of the KDE kernel [V2]", exclusiveMinimum=0)
    gather_regularizer: bool = key(True, "regularize over all ranks' embeddings [our choice]")
    student_temperature: float = key(0.1, "[D2]", exclusiveMinimum=0)
    teacher_temperature: tuple[float, float] = key((0.04, 0.07), "warmed up from, to [D2]", exclusiveMinimum=0)
    teacher_warmup: float = key(
        0.3, "share of the run over which it warms up [D2: 30 of 100 epochs]", minimum=0, maximum=1
    )
    centering: Literal["sinkhorn", "softmax"] = key(
        "sinkhorn",
        "targets of the teacher. sinkhorn: all prototypes used equally [D2 for ViT-L and -g]; softmax: less a moving "
        "centre [DINO; D2's default]",
    )
    center_momentum: float = key(0.9, "of the moving centre, for centering: softmax [D2]", minimum=0, maximum=1)
    sinkhorn_iterations: int = key(3, "for centering: sinkhorn [D2]", minimum=1)
    mask_probability: float = key(0.5, "share of global crops with masked patches [D2]", minimum=0, maximum=1)
    mask_ratio: tuple[float, float] = key((0.1, 0.5), "range of the masked share [D2]", minimum=0, maximum=1)


@dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedules; shares are of the whole run."""

    base_lr: float = key(3.5e-4, "peak = base · √(batch/1024) [P; rule: D2]", exclusiveMinimum=0)
    min_lr: float = key(1e-6, "lr at the end [D2]", minimum=0)
    warmup: float = key(0.1, "share of linear warm-up [D2: 10 of 100 epochs]", minimum=0, maximum=1)
    weight_decay: tuple[float, float] = key((0.04, 0.2), "cosine from, to [D2 for ViT-g; else to .4]", minimum=0)
    layer_decay: float = key(1.0, "lr factor per layer from the top [D2: 1.0 for ViT-g]", exclusiveMinimum=0, maximum=1)
    patch_embed_lr: float = key(0.2, "lr factor of the patch embedding [D2]", exclusiveMinimum=0)
    decay_tokens: bool = key(True, "weight decay of the class, register and mask tokens and the position table [D2]")
    betas: tuple[float, float] = key((0.9, 0.999), "AdamW [D2]", minimum=0, exclusiveMaximum=1)
    clip_grad: float = key(3.0, "largest gradient norm [D2]", exclusiveMinimum=0)
    freeze_last_layer: float = key(
        0.01, "share of the run with frozen prototypes [D2: 1 of 100 epochs]", minimum=0, maximum=1
    )
    momentum: tuple[float, float] = key(
        (0.994, 1.0), "EMA of the teacher, cosine from, to [D2 for ViT-g; else .992]", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class Training:
    """Length, batch and bookkeeping of the run."""

    iterations: int = key(1_000_000, "micro-steps; an optimizer step every `accumulation` [P]", minimum=1)
    schedule_iterations: int | None = key(None, "length of the schedules if not `iterations`", minimum=1)
    gpus: int = key(32, "processes [P]", minimum=1)
    batch_size: int = key(12, "tiles per process and micro-step [P]", minimum=1)
    accumulation: int = key(2, "micro-steps per optimizer step [P]", minimum=1)
    precision: Literal["float32", "bfloat16", "float16", "float8"] = key(
        "bfloat16",
        "of the forward pass; float16: with a scaled loss, for GPUs without bfloat16 such as V100 and T4; "
        "float8: of the blocks' linear layers, Hopper or newer [our choice]",
    )
    compile: bool = key(False, "torch.compile each block; the first steps take minutes [our choice]")
    activation_checkpointing: bool = key(False, "compute activations again instead of keeping them [our choice]")
    checkpoint_every: int = key(2500, "micro-steps between checkpoints [our choice]", minimum=1)
    keep_checkpoints: int = key(3, "newest checkpoints kept [our choice]", minimum=1)
    keep_every: int | None = key(None, "micro-steps; the first checkpoint from each multiple on is kept", minimum=1)
    sharding: Literal["none", "fsdp"] = key("none", "fsdp: weights and optimizer split over processes [our choice]")
    log_every: int = key(10, "micro-steps between lines of metrics.jsonl [our choice]", minimum=1)
    probe_every: int = key(2500, "micro-steps between kNN probes, for the curves only; 0: none [our choice]", minimum=0)
    probe_tiles: int = key(2048, "labelled tiles of the probe, of all processes [our choice]", minimum=2)
    workers: int = key(8, "data-loading processes per GPU, 0 = in the main one [our choice]", minimum=0)
    stall_seconds: float = key(
        300.0, "without a sign of life, after which a data-loading process is replaced [our choice]", exclusiveMinimum=0
    )
    augment: Literal["cpu", "device"] = key("cpu", "where crops are made: workers, or the GPU [our choice]")
    max_nonfinite: int = key(5, "consecutive non-finite losses before the run stops [our choice]", minimum=0)

    @property
    def effective_batch(self) -> int:
        """Tiles per optimizer step."""
        return self.gpus * self.batch_size * self.accumulation

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return choose(self.sharding, {"none": False, "fsdp": True}, "training.sharding")

    @property
    def whole_tiles(self) -> bool:
        """Whether loaders give whole tiles, of which the training device makes the crops."""
        return choose(self.augment, {"cpu": False, "device": True}, "training.augment")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on besides the slides."""

    name: str = key("", "the file's name; filled in by the loader")
    tiles: Tiles = key(Tiles, "which tiles are drawn")
    crops: Crops = key(Crops, "multi-crop views")
    backbone: Backbone = key(Backbone, "the vision transformer")
    heads: Heads = key(Heads, "projection heads")
    loss: Loss = key(Loss, "the objective")
    optimizer: Optimizer = key(Optimizer, "AdamW and schedules")
    training: Training = key(Training, "length and batch")
    seed: int = key(0, "of everything random in the run", minimum=0)
