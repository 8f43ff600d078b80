"""eva's own way: a YAML file per task and pooling, in the form of its published ones, run by its command line."""

import json
from pathlib import Path
from typing import Any

from midnight.evaluate.entries import Task

from .workspace import SEED, Workspace

Values = dict[str, Any]
ONLINE = "segmentation"
LABELS = ["background", "other", "inflammatory", "epithelial", "spindle-shaped"]


def described(class_path: str, **arguments: Any) -> Values:
    """An object of a YAML file."""
    return {"class_path": class_path, "init_args": arguments} if arguments else {"class_path": class_path}


def configuration(space: Workspace, task: Task, pooling: str, output: Path) -> Values:
    """The YAML file: for `eva fit` where the task is one of segmentation, else for `eva predict_fit`.

    Budget, batch size, optimiser and schedule are those of the task's protocol. `num_workers` is 0 instead of 4: eva's
    workers are spawned anew for each fit, validation and test, and import eva each time.
    """
    if task.kind == ONLINE:
        extra = described(
            "eva.vision.callbacks.SemanticSegmentationLogger",
            log_every_n_epochs=1,
            mean=space.card["mean"],
            std=space.card["std"],
        )
        model, datasets = decoder(space, task), {role: images(space, task, role) for role in roles(task)}
    else:
        extra = described(
            "eva.callbacks.ClassificationEmbeddingsWriter",
            output_dir=str(output / "embeddings"),
            dataloader_idx_map=dict(enumerate(roles(task))),
            backbone=backbone(space, pooling),
            overwrite=False,
        )
        model = head(space, task, pooling)
        datasets = {role: embeddings(task, role, output) for role in roles(task)}
        datasets["predict"] = [images(space, task, role) for role in roles(task)]
    data = {"datasets": datasets, "dataloaders": loaders(task)} | samplers(task)
    return {"trainer": trainer(task, output, extra), "model": model, "data": described("eva.DataModule", **data)}


def roles(task: Task) -> list[str]:
    """The splits that the task uses."""
    return [role for role in ("train", "val", "test") if role in ("train", "val", task.scored)]


def trainer(task: Task, output: Path, extra: Values) -> Values:
    """The trainer with the callbacks of eva's YAML files."""
    callbacks, watched, values = "lightning.pytorch.callbacks.", {"monitor": task.monitor, "mode": "max"}, task.values
    return described(
        "eva.Trainer",
        n_runs=values.runs,
        default_root_dir=str(output / "logs"),
        max_steps=values.max_steps,
        check_val_every_n_epoch=values.validate_every,
        num_sanity_val_steps=values.sanity_steps,
        checkpoint_type="best",
        callbacks=[
            described("eva.callbacks.ConfigurationLogger"),
            described(f"{callbacks}TQDMProgressBar", refresh_rate=1),
            described(f"{callbacks}LearningRateMonitor", logging_interval="epoch"),
            described(f"{callbacks}ModelCheckpoint", filename="best", save_last=True, save_top_k=1, **watched),
            described(f"{callbacks}EarlyStopping", min_delta=values.min_delta, patience=values.patience, **watched),
            extra,
            described("evaluate_support.extras.Reseed", seed=SEED),
        ],
        logger=[described("lightning.pytorch.loggers.TensorBoardLogger", save_dir=str(output / "logs"), name="")],
    )


def backbone(space: Workspace, pooling: str) -> Values:
    """The model: "cls" and "cls_mean" give embeddings, "maps" the patch tokens' map; all after the last norm."""
    kwargs = space.card["kwargs"] | {"num_classes": 0}
    registers = {"num_register_tokens": space.card["registers"]}
    transforms = {
        "cls": {},
        "cls_mean": described("eva.core.models.transforms.ExtractCLSFeatures", include_patch_tokens=True, **registers),
        "maps": described("eva.core.models.transforms.ExtractPatchFeatures", **registers),
    }[pooling]
    if transforms:
        kwargs["global_pool"] = ""
    arguments = {"model_name": space.card["arch"], "checkpoint_path": str(space.model / "teacher.safetensors")}
    found = described("eva.vision.models.wrappers.TimmModel", **arguments, model_kwargs=kwargs)
    found["init_args"] |= {"transforms": transforms} if transforms else {}
    return found


def head(space: Workspace, task: Task, pooling: str) -> Values:
    """The linear head with eva's own metrics of its kind."""
    binary, width = task.classes == 1, space.card["embed_dim"] * (2 if pooling == "cls_mean" else 1)
    metrics = "eva.metrics.BinaryClassificationMetrics" if binary else "eva.metrics.MulticlassClassificationMetrics"
    own = described(metrics) if binary else described(metrics, num_classes=task.classes)
    outputs = {"in_features": width, "out_features": task.classes}
    return described(
        "eva.HeadModule",
        head=described("evaluate_support.extras.SeededLinear", **outputs, seed=SEED),
        criterion="torch.nn.BCEWithLogitsLoss" if binary else "torch.nn.CrossEntropyLoss",
        metrics={"common": [described("eva.metrics.AverageLoss"), own]},
        **optimisation(task),
    )


def decoder(space: Workspace, task: Task) -> Values:
    """The online segmentation module of eva's CoNSeP file."""
    dice = described(
        "eva.vision.metrics.MonaiDiceScore", include_background=True, num_classes=task.classes, reduction="none"
    )
    own = described("eva.vision.metrics.defaults.MulticlassSegmentationMetrics", num_classes=task.classes)
    by_class = described("torchmetrics.ClasswiseWrapper", metric=dice, labels=LABELS)
    widths = {"in_features": space.card["embed_dim"], "num_classes": task.classes}
    return described(
        "eva.vision.models.modules.SemanticSegmentationModule",
        encoder=backbone(space, "maps"),
        decoder=described("evaluate_support.extras.SeededDecoder", **widths, seed=SEED),
        criterion=described("eva.vision.losses.DiceLoss", softmax=True, batch=True),
        lr_multiplier_encoder=0.0,
        postprocess={"predictions_transforms": ["evaluate_support.extras.classes"]},
        metrics={"common": [described("eva.metrics.AverageLoss")], "evaluation": [own, by_class]},
        **optimisation(task),
    )


def optimisation(task: Task) -> Values:
    """AdamW and the schedule, explicit."""
    whole, schedule = ("T_max", "total_iters"), task.values.scheduler
    arguments = {name: int(value) if name in whole else value for name, value in schedule.args.items()}
    return {
        "optimizer": described("torch.optim.AdamW", lr=task.values.lr, weight_decay=task.values.weight_decay),
        "lr_scheduler": described(f"torch.optim.lr_scheduler.{schedule.name}", **arguments),
    }


def images(space: Workspace, task: Task, role: str) -> Values:
    """eva's data set of one split, preprocessed as ours."""
    look = {"size": space.effort.size, "mean": space.card["mean"], "std": space.card["std"]}
    return described(
        task.dataset.class_path,
        root=str(space.data / task.dataset.root),
        split=task.dataset.splits[role],
        transforms=described("eva.vision.data.transforms.common.ResizeAndCrop", **look),
        **task.dataset.args,
    )


def embeddings(task: Task, role: str, output: Path) -> Values:
    """The .pt files of one split that eva's writer made."""
    arguments: Values = {"root": str(output / "embeddings"), "manifest_file": "manifest.csv", "split": role}
    if task.classes == 1:
        arguments["target_transforms"] = described("torchvision.transforms.v2.ToDtype", dtype="torch.float32")
    return described("eva.datasets.EmbeddingsClassificationDataset", **arguments)


def loaders(task: Task) -> Values:
    """Batch sizes; no worker processes."""
    values = task.values
    here = {"num_workers": 0, "persistent_workers": False, "prefetch_factor": None}
    held_out = {"batch_size": values.eval_batch_size or values.batch_size, **here}
    train = {"batch_size": values.batch_size, "shuffle": values.shots is None, **here}
    return {"train": train, "val": held_out, "test": held_out, "predict": {"batch_size": 64, **here}}


def samplers(task: Task) -> Values:
    """The tiles that a 10-shot run draws: anew for each run, by the seed that our side uses."""
    if not task.values.shots:
        return {}
    drawn = {"num_samples": task.values.shots, "seed": SEED, "reset_generator": False}
    return {"samplers": {"train": described("eva.core.data.samplers.classification.BalancedSampler", **drawn)}}


def read_scores(output: Path, task: Task) -> list[float]:
    """The scored metric of each run from eva's results file."""
    (path,) = (output / "logs").glob("*/results.json")
    results = json.loads(path.read_text(encoding="utf-8"))["metrics"][task.scored][0]
    return [float(value) for value in results[f"{task.scored}/{task.metric}"]["values"]]
