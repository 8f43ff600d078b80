"""GPU-hours, money and energy of a run at stated rates."""

from dataclasses import dataclass

from midnight.config import Recipe, choose
from midnight.ssl.budget.flops import Flops


@dataclass(frozen=True)
class Gpu:
    """A GPU (SXM where there is one): dense peaks in FLOP/s with float32 sums, memory in bytes, board power in W.

    These are NVIDIA's data sheets'; the price is assumed.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    watts: float
    price: float

    def peak(self, precision: str) -> float:
        """FLOP/s of matrix products in a recipe's precision.

        float16 counts as bfloat16, and so does float8, whose gain is unmeasured.
        """
        half = dict.fromkeys(("bfloat16", "float16", "float8"), self.bfloat16)
        peaks = {"float32": self.float32} | half
        return choose(precision, peaks, "training.precision")


GPUS = {
    "h100": Gpu("H100", 989e12, 67e12, 80e9, 700, 3.0),
    "h100pcie": Gpu("H100 PCIe", 756e12, 51e12, 80e9, 350, 2.5),
    "h200": Gpu("H200", 989e12, 67e12, 141e9, 700, 4.0),
    "b200": Gpu("B200", 2250e12, 75e12, 180e9, 1000, 5.0),
    "a100": Gpu("A100", 312e12, 19.5e12, 80e9, 400, 2.0),
    "l40s": Gpu("L40S", 362e12, 91.6e12, 48e9, 350, 1.0),
    "rtx4090": Gpu("RTX 4090", 165e12, 82.6e12, 24e9, 450, 0.5),
    "a10": Gpu("A10", 125e12, 31.2e12, 24e9, 150, 0.8),
}
CPU_FLOPS = 50e9
"""FLOP/s of float32 training on two cores without a GPU: between 20e9 (a tiny ViT, busy machine) and 100e9 (ViT-S)."""


@dataclass(frozen=True)
class Rates:
    """What a run is reckoned by: GPU, share of its peak, USD per GPU-hour, W per GPU."""

    gpu: Gpu
    mfu: float
    price: float
    watts: float


@dataclass(frozen=True)
class Cost:
    """tiles seen; images/s of one GPU; hours of one GPU; days on all; USD; kWh; hours on two CPU cores instead."""

    tiles: int
    images_per_s: float
    gpu_hours: float
    days: float
    usd: float
    kwh: float
    cpu_hours: float


def cost_of(recipe: Recipe, flops: Flops, rates: Rates) -> Cost:
    """The whole run's cost."""
    training = recipe.training
    tiles = training.iterations * training.batch_size * training.gpus
    images_per_s = rates.gpu.peak(training.precision) * rates.mfu / flops.total
    hours = tiles / images_per_s / 3600
    cpu = tiles * flops.total / CPU_FLOPS / 3600
    days = hours / training.gpus / 24
    return Cost(tiles, images_per_s, hours, days, hours * rates.price, hours * rates.watts / 1000, cpu)
