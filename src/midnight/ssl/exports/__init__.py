"""A finished run for other people's libraries: a folder that timm, transformers or kaiko-eva loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer

from midnight.errors import MidnightError
from midnight.outputs import signed_folder
from midnight.ssl.export import load_model
from midnight.ssl.exports.to_eva import write_eva
from midnight.ssl.exports.to_hf import write_hf
from midnight.ssl.exports.to_timm import write_timm

Writer = Callable[[VisionTransformer, dict[str, Any], Path, Path], None]
WRITERS: dict[str, Writer] = {"timm": write_timm, "hf": write_hf, "eva": write_eva}


def export_run(folder: Path, target: str, output: Path, force: bool = False) -> None:
    """Write a run's teacher as a folder of another library.

    Args:
        folder: a run's, with teacher.safetensors and model.json.
        target: `timm`, `hf` or `eva`.
        output: folder to write: a new or empty one, or an earlier export for the same library.
        force: replace other files of the same names too.

    Raises:
        MidnightError: the run can't be read, the library has no such model, or the folder can't be written or holds
            something else.
    """
    folder = Path(folder)
    inputs = [folder, *(folder.iterdir() if folder.is_dir() else ())]
    with signed_folder(Path(output), inputs, f"midnight export --to {target}", force) as checked:
        model, card = load_model(folder)
        if not isinstance(model, VisionTransformer):
            raise MidnightError(f"{folder}: {card['arch']} is no vision transformer")
        WRITERS[target](model, card, folder, checked)
