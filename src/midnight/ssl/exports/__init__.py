"""A finished run for other people's libraries: a folder that timm, transformers or kaiko-eva loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer

from midnight.errors import MidnightError
from midnight.ssl.export import load_model
from midnight.ssl.exports.to_eva import write_eva
from midnight.ssl.exports.to_hf import write_hf
from midnight.ssl.exports.to_timm import write_timm

Writer = Callable[[VisionTransformer, dict[str, Any], Path, Path], None]
WRITERS: dict[str, Writer] = {"timm": write_timm, "hf": write_hf, "eva": write_eva}


def export_run(folder: Path, target: str, output: Path) -> None:
    """Write a run's teacher as a folder of another library.

    Args:
        folder: a run's, with teacher.safetensors and model.json.
        target: `timm`, `hf` or `eva`.
        output: folder to write; files of the same name are replaced.

    Raises:
        MidnightError: the run can't be read, the library has no such model, or the folder can't be written.
    """
    if Path(output).resolve() == Path(folder).resolve():
        raise MidnightError(f"{output}: is the run's own folder; name another one for the export")
    model, card = load_model(folder)
    if not isinstance(model, VisionTransformer):
        raise MidnightError(f"{folder}: {card['arch']} is no vision transformer")
    WRITERS[target](model, card, Path(folder), Path(output))
