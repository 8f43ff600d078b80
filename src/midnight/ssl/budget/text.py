"""A budget as text: YAML comments, so that what stands above them stays a YAML file."""

from midnight.config import Recipe
from midnight.ssl.budget import Budget
from midnight.ssl.budget.cost import CPU_FLOPS, GPUS
from midnight.ssl.budget.fit import largest_batch
from midnight.ssl.budget.memory import Plan
from midnight.ssl.schedules import peak_lr

T, GB = 1e12, 1e9


def describe(budget: Budget) -> str:
    """The lines of a budget, each a comment."""
    lines = ["", "What a run takes, by formula (1 GB = 10⁹ B; FLOP: matrix products, 2 per multiply-add)."]
    lines += [*_network(budget), "", *_memory(budget), "", *_cost(budget)]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _network(budget: Budget) -> list[str]:
    shape, flops = budget.shape, budget.flops
    without = flops.total + flops.skipped
    return [
        f"parameters      {_millions(shape.parameters)}: backbone {_millions(shape.backbone_parameters)}, "
        f"{_heads(shape.head_parameters)}; the teacher has as many",
        f"FLOPs per image {flops.total / T:.4g} TFLOP: teacher {flops.teacher / T:.3g}, "
        f"student forward {flops.forward / T:.3g}, backward {flops.backward / T:.3g}; "
        f"stochastic depth saves {flops.skipped / without:.0%}",
    ]


def _heads(parameters: tuple[int, ...]) -> str:
    """One head, two of a size as "2 ×", two others as a sum."""
    if len(set(parameters)) == 1:
        return f"heads {len(parameters)} × {_millions(parameters[0])}"
    return f"heads {' + '.join(_millions(each) for each in parameters)}"


def _memory(budget: Budget) -> list[str]:
    training = budget.recipe.training
    names = list(budget.plans[0].parts)
    titles = [_title(plan, training.gpus) for plan in budget.plans]
    width = max(map(len, titles)) + 2
    rows = [[f"{plan.parts[name] / GB:.2f}" for plan in budget.plans] for name in names]
    rows.append([f"{plan.total / GB:.1f}" for plan in budget.plans])
    rows += [["yes" if plan.total <= gpu.memory else "NO" for plan in budget.plans] for gpu in GPUS.values()]
    labels = [*names, "total", *(f"fits {gpu.name}, {gpu.memory / GB:.0f} GB" for gpu in GPUS.values())]
    table = [
        f"  {label:<18}" + "".join(f"{cell:>{width}}" for cell in row) for label, row in zip(labels, rows, strict=True)
    ]
    head = f"memory per GPU, GB; {training.batch_size} tiles per GPU and micro-step, {training.precision}"
    header = f"  {'':<18}" + "".join(f"{title:>{width}}" for title in titles)
    keys = "by training.sharding and training.activation_checkpointing"
    own = f"this recipe: {_title(budget.plan, training.gpus)}, {budget.plan.total / GB:.1f} GB ({keys})"
    return [head, header, *table, "  (+ckpt: with activation checkpointing)", own, _largest(budget)]


def _largest(budget: Budget) -> str:
    gpu = budget.rates.gpu
    plain, again = (largest_batch(budget.recipe, budget.shape, gpu.memory, recompute) for recompute in (False, True))
    return (
        f"largest batch on {gpu.name}, {gpu.memory / GB:.0f} GB: {plain:,} tiles per GPU and micro-step, "
        f"{again:,} +ckpt; here {budget.recipe.training.batch_size:,}"
    )


def _title(plan: Plan, gpus: int) -> str:
    name = "one GPU" if gpus == 1 else (f"FSDP × {gpus}" if plan.sharded else "DDP")
    return f"{name} +ckpt" if plan.recompute else name


def _cost(budget: Budget) -> list[str]:
    training, rates, cost = budget.recipe.training, budget.rates, budget.cost
    repeat = budget.flops.blocks / budget.flops.total
    gpus = f"{training.gpus} GPU{'s' if training.gpus > 1 else ''}"
    peak = rates.gpu.peak(training.precision) / T
    return [
        *_batch(budget.recipe),
        f"at {rates.mfu:.0%} MFU of {rates.gpu.name} ({peak:g} TFLOP/s {training.precision}, dense), "
        f"{rates.price:g} USD per GPU-hour, {rates.watts:g} W per GPU",
        "(prices are assumptions, W is the board without host and cooling: --gpu --mfu --price --watts)",
        f"tiles           {cost.tiles:,} = {training.iterations:,} micro-steps × {training.batch_size} × {gpus}",
        f"speed           {_short(cost.images_per_s)} images/s per GPU",
        f"GPU-hours       {_short(cost.gpu_hours)}: {_short(cost.days)} days on {gpus}; "
        f"with activation checkpointing (+ckpt) {repeat:.0%} more",
        f"cost            {_short(cost.usd)} USD",
        f"energy          {_short(cost.kwh)} kWh",
        f"without a GPU   about {_time(cost.cpu_hours)} on two CPU cores ({CPU_FLOPS / 1e9:.0f} GFLOP/s)",
    ]


def _batch(recipe: Recipe) -> list[str]:
    """Effective batch and the learning rate that follows from it."""
    training, base = recipe.training, recipe.optimizer.base_lr
    gpus = f"{training.gpus} GPU{'s' if training.gpus > 1 else ''}"
    parts = f"{training.batch_size} tiles × {gpus} × accumulation {training.accumulation}"
    rule = f"{base:g} · √({training.effective_batch}/1024), optimizer.base_lr"
    return [
        f"batch           {training.effective_batch:,} = {parts}",
        f"peak lr         {peak_lr(recipe, training.gpus):.3g} = {rule}",
    ]


def _time(hours: float) -> str:
    if hours < 1:
        return f"{_short(60 * hours)} minutes"
    return f"{_short(hours)} hours" if hours < 48 else f"{_short(hours / 24)} days"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _short(value: float) -> str:
    """Three digits or all before the point; what is next to nothing is said to be."""
    if value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
