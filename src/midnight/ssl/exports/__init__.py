"""A finished run for other people's libraries: a folder that timm, transformers or kaiko-eva loads."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer

from midnight.config.load import read_yaml
from midnight.errors import MidnightError
from midnight.outputs import signed_folder
from midnight.ssl.exports.model_folder import load_model
from midnight.ssl.exports.readme import Result, loading_lines, upload_line, write_readme
from midnight.ssl.exports.to_eva import write_eva
from midnight.ssl.exports.to_hf import write_hf
from midnight.ssl.exports.to_timm import write_timm

Writer = Callable[[VisionTransformer, dict[str, Any], Path, Path], None]
WRITERS: dict[str, Writer] = {"timm": write_timm, "hf": write_hf, "eva": write_eva}


def export_run(
    folder: Path, target: str, output: Path, force: bool = False, results: Sequence[Result] = ()
) -> list[str]:
    """Write a run's teacher as a folder of another library, with a model card.

    Args:
        folder: a run's, with teacher.safetensors and model.json.
        target: `timm`, `hf` or `eva`.
        output: folder to write: a new or empty one, or an earlier export for the same library.
        force: replace other files of the same names too.
        results: the run's scores, for the card.

    Returns:
        The three lines that load the folder and the one that uploads it.

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
        write_readme(card, folder, target, checked, cohorts_of(folder), results)
    return [*loading_lines(target, str(output)), upload_line(Path(output), folder)]


def cohorts_of(folder: Path) -> list[str]:
    """The cohorts of a run's config.yaml; none where there is no such file, as for a random init."""
    path = folder / "config.yaml"
    return sorted(read_yaml(path)["cohorts"]) if path.is_file() else []
