"""Segmentation heads: eva's convolutional decoder, fitted online on a frozen encoder's feature maps."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from midnight.config import choose
from midnight.errors import MidnightError
from midnight.evaluate.encoder import Encoder, patch_map
from midnight.evaluate.entries import Task
from midnight.evaluate.features import as_is
from midnight.evaluate.images import open_images, preprocessing, read_item
from midnight.evaluate.quiet import quiet
from midnight.evaluate.session import build_data, build_optimizer, build_scheduler, run_session

MEMO_BYTES = 4 * 2**30


class MapEncoder(nn.Module):
    """Images float32 [B, 3, S, S] → [feature map float32 [B, D, h, h]], normalised; never trained, never copied.

    With `memo`, maps of images seen before are looked up (by a hash of the pixels) instead of computed: the encoder
    is frozen and the preprocessing fixed, so every epoch of every run would compute the same maps again.
    """

    def __init__(self, encoder: Encoder, memo: bool) -> None:
        super().__init__()
        self.tokens, self.registers, self.dim = encoder.tokens, encoder.registers, encoder.dim
        self.memo: dict[bytes, Tensor] | None = {} if memo else None

    def __deepcopy__(self, seen: dict[int, Any]) -> "MapEncoder":
        """eva copies the module for each run; the encoder has no state that a run could change."""
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        if self.memo is None:
            return [self._compute(images)]
        keys = [hashlib.blake2b(image.numpy().data, digest_size=16).digest() for image in images.cpu().contiguous()]
        missing = [index for index, key in enumerate(keys) if key not in self.memo]
        fresh = dict(zip(missing, self._compute(images[missing]), strict=True)) if missing else {}
        maps = [fresh[index] if index in fresh else self.memo[key] for index, key in enumerate(keys)]
        for index, value in fresh.items():
            if (len(self.memo) + 1) * value.nbytes <= MEMO_BYTES:
                self.memo[keys[index]] = value.clone()
        return [torch.stack(maps).contiguous(memory_format=torch.channels_last)]

    def _compute(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return patch_map(self.tokens(images), self.registers).float()


class Held(Dataset[Any]):
    """A data set whose items are read once and held: (image float32 [3, S, S], mask int64 [S, S])."""

    def __init__(self, images: Any) -> None:
        items = [read_item(images, index) for index in range(len(images))]
        pixels = torch.stack([plain_tensor(item[0]) for item in items])
        self.images = pixels.contiguous(memory_format=torch.channels_last)
        self.masks = torch.stack([plain_tensor(item[1]) for item in items])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images [B, 3, S, S] and masks [B, S, S]."""
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.masks[chosen]


class Drawn(Dataset[Any]):
    """A data set whose random transforms are drawn anew each time; its files, slow to parse, are read once."""

    def __init__(self, images: Any, transforms: Callable[..., Any]) -> None:
        """Read all items.

        Args:
            images: of (image uint8 [3, h, w], mask with up to 256 classes [h, w], …), without transforms.
            transforms: of (image, mask), to one size.
        """
        items = (read_item(images, index) for index in range(len(images)))
        self.items = [(item[0], plain_tensor(item[1]).to(torch.uint8)) for item in items]
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from torchvision.tv_tensors import Mask

        image, mask = self.items[index]
        image, mask = self.transforms(image, Mask(mask))
        return plain_tensor(image), plain_tensor(mask).long()

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Images [B, 3, S, S] and masks [B, S, S]."""
        return default_collate([self[index] for index in indices])


def plain_tensor(value: Any) -> Tensor:
    """An image or mask as a plain tensor: torchvision's own classes make every operation slower."""
    return value.as_subclass(Tensor)


def fit_segmentation(task: Task, encoder: Encoder, root: Path, size: int, accelerator: str, seed: int) -> list[float]:
    """The Dice score of each run.

    Args:
        task: with its protocol set.
        encoder: frozen; asserted to be so and unchanged afterwards.
        root: the data.
        size: input size, px.
        accelerator: cpu, gpu or auto.
        seed: of decoder and batches.

    Raises:
        MidnightError: the data are wrong, or the encoder is not frozen.
    """
    with quiet():
        datasets = open_datasets(task, encoder, root, size)
        before = check_frozen(encoder)
        torch.manual_seed(seed)  # the decoder's init
        module = build_module(task, encoder)
        data = build_data(task.values, datasets, seed, as_is)
        values = run_session(task, module, data, task.values.runs, accelerator, seed)
        if check_frozen(encoder) != before:
            raise MidnightError(f"task {task.name}: the encoder's weights changed while its decoder was fitted")
    return values


def open_datasets(task: Task, encoder: Encoder, root: Path, size: int) -> dict[str, Any]:
    """The data sets by role, in memory: preprocessed where the preprocessing is fixed, else as they are."""
    fixed = preprocessing(size, encoder.mean, encoder.std)
    datasets: dict[str, Any] = {}
    for role in task.roles:
        if role == "train" and is_random(task.dataset.crop):
            datasets[role] = Drawn(open_images(task, root, role, None), random_preprocessing(size, encoder))
        else:
            datasets[role] = Held(open_images(task, root, role, fixed))
    return datasets


def is_random(crop: str) -> bool:
    """Whether training images differ each time that they are read."""
    return choose(crop, {"resize-crop": False, "random-resized": True}, "dataset.crop")


def random_preprocessing(size: int, encoder: Encoder) -> Any:
    """MoNuSAC's training transform in eva: RandomResizedCrop, 0–1, normalised."""
    from torchvision.transforms import v2

    mean, std = list(encoder.mean), list(encoder.std)
    steps = [v2.RandomResizedCrop(size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    return v2.Compose(steps)


def build_module(task: Task, encoder: Encoder) -> Any:
    """eva's SemanticSegmentationModule: frozen encoder, ConvDecoderWithImage, Dice loss, Dice without background."""
    from eva.core.metrics.structs import MetricCollection, MetricsSchema
    from eva.core.models.modules.utils import BatchPostProcess
    from eva.vision.losses import DiceLoss
    from eva.vision.metrics import MonaiDiceScore
    from eva.vision.models.modules import SemanticSegmentationModule
    from eva.vision.models.networks.decoders.segmentation import ConvDecoderWithImage

    ignored = {} if task.ignore_index is None else {"ignore_index": task.ignore_index}
    outputs = task.classes + len(ignored)
    dice = MonaiDiceScore(num_classes=outputs, include_background=False, ignore_empty=True, **ignored)
    decoder = ConvDecoderWithImage(in_features=encoder.dim, num_classes=task.classes)
    return SemanticSegmentationModule(
        encoder=MapEncoder(encoder, memo=not is_random(task.dataset.crop)),
        decoder=decoder.to(memory_format=torch.channels_last),  # a quarter faster on CPU, the same numbers
        criterion=DiceLoss(softmax=True, batch=True, **ignored),
        lr_multiplier_encoder=0.0,
        optimizer=build_optimizer(task.values),
        lr_scheduler=build_scheduler(task.values),
        postprocess=BatchPostProcess(predictions_transforms=[_classes]),
        metrics=MetricsSchema(evaluation=MetricCollection({"MonaiDiceScore": dice})),
    )


def _classes(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1)


def check_frozen(encoder: Encoder) -> str:
    """Assert that nothing of the encoder can be trained; a hash of its first and last parameters.

    Raises:
        MidnightError: a parameter requires a gradient or has one, or the encoder is in training mode.
    """
    named = list(encoder.tokens.named_parameters())
    thawed = [name for name, value in named if value.requires_grad or value.grad is not None]
    if thawed or encoder.tokens.training:
        raise MidnightError(f"the encoder is not frozen: {thawed[:1] or 'it is in training mode'}")
    digest = hashlib.sha256()
    for _, value in (named[0], named[-1]):
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
