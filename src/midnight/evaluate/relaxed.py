"""eva's data sets without their check of exact counts, for small stand-ins; all else is eva's."""

from typing import ClassVar

from eva.vision.data.datasets import _validators, classification, segmentation

ANY = dict.fromkeys(("train", "val", "test"))


class PatchCamelyon(classification.PatchCamelyon):
    """eva's PatchCamelyon for any number of patches."""

    _expected_length: ClassVar[dict[str, int]] = {}


class BRACS(classification.BRACS):
    """eva's BRACS for any number of regions."""

    _expected_dataset_lengths: ClassVar[dict[str, None]] = ANY


class GleasonArvaniti(classification.GleasonArvaniti):
    """eva's GleasonArvaniti for any number of patches."""

    _expected_dataset_lengths: ClassVar[dict[str, None]] = ANY


class CRC(classification.CRC):
    """eva's CRC for any number of images."""

    def validate(self) -> None:
        """eva's check of the classes."""
        _validators.check_dataset_integrity(self, length=None, n_classes=9, first_and_last_labels=("ADI", "TUM"))


class PANDASmall(classification.PANDASmall):
    """eva's PANDASmall for any number of slides: with another table of grades than the published one."""

    _resources: ClassVar[list[object]] = []


class CoNSeP(segmentation.CoNSeP):
    """eva's CoNSeP for any number of fields."""

    def validate(self) -> None:
        """eva's check of the classes."""
        _validators.check_dataset_integrity(
            self, length=None, n_classes=5, first_and_last_labels=("background", "spindle-shaped")
        )
