"""The model card of an export: README.md with the front matter that Hugging Face's hub reads."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from midnight.atomic import write_text
from midnight.config.pipeline import is_generated
from midnight.ssl.checkpoint.run_key import SEGMENTS
from midnight.ssl.checkpoint.segments import told

FILE = "README.md"
LIBRARIES = {"timm": "timm", "hf": "transformers", "eva": "kaiko-eva"}
LOADING = {
    "timm": (
        "import timm",
        "model = timm.create_model({timm}, pretrained=True).eval()",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
    ),
    "hf": (
        "from transformers import AutoImageProcessor, AutoModel",
        "processor = AutoImageProcessor.from_pretrained({folder})",
        "model = AutoModel.from_pretrained({folder}).eval()",
    ),
    "eva": (
        "# in eva's configuration of your task, instead of its `backbone:`, the block of",
        "#   {folder}/classification.yaml (or segmentation.yaml)",
        "# then: eva predict_fit --config TASK.yaml",
    ),
}
TEMPLATE = """---
{front}---
# {name}
{warning}A vision transformer for histopathology tiles, trained without labels by Midnight with DINOv2's losses.

## Load it
```{language}
{loading}
```
Input: RGB tiles in 0–1, normalised by mean {mean} and standard deviation {std}; trained at {size} px, any multiple of
{patch} px works. Output: a CLS token and {grid} × {grid} patch tokens at {size} px, {dim} numbers each{registers}.
CLS, or CLS beside the mean of the patch tokens, is what a head is fitted on.

## Training
{facts}

## Scores
{scores}

## Limits
For research. It was never examined for diagnosis, and on scanners, stains and tissues that it has not seen it may fail
without a sign: check it on labelled tiles of your own first.
"""


@dataclass(frozen=True)
class Result:
    """One score of the model: what a line of the card shows."""

    task: str
    size: int
    pooling: str
    metric: str
    mean: float
    protocol: str
    data: str


def write_readme(
    card: Mapping[str, Any], run: Path, target: str, output: Path, cohorts: Sequence[str], results: Sequence[Result]
) -> None:
    """Write README.md.

    Args:
        card: the run's model.json.
        run: the run's folder, for its name.
        target: `timm`, `hf` or `eva`.
        output: the export's folder; the lines that load it say USER/NAME of the hub instead.
        cohorts: what it was trained on; empty where nobody knows.
        results: its scores.

    Raises:
        MidnightError: the file can't be written.
    """
    name = run.resolve().name
    text = TEMPLATE.format(
        front=front_matter(target),
        name=_plain(name),
        warning=_warning(str(card["data"])),
        language="python" if target != "eva" else "yaml",
        loading="\n".join(loading_lines(target, f"USER/{name}", hub=True)),
        mean=card["mean"],
        std=card["std"],
        size=card["img_size"],
        patch=card["patch_size"],
        grid=card["img_size"] // card["patch_size"],
        dim=card["embed_dim"],
        registers=f", and {card['registers']} registers between them to leave out" if card["registers"] else "",
        facts=_facts(card, cohorts),
        scores=_scores(results),
    )
    write_text(output / FILE, text)


def front_matter(target: str) -> str:
    """The YAML head. No licence: that is for the person who gives it."""
    values = {
        "library_name": LIBRARIES[target],
        "pipeline_tag": "image-feature-extraction",
        "tags": ["pathology", "histopathology", "vit", "dinov2", "self-supervised-learning"],
    }
    return f"# license: name yours, e.g. cc-by-nc-4.0\n{yaml.safe_dump(values, sort_keys=False)}"


def loading_lines(target: str, folder: str, hub: bool = False) -> list[str]:
    """Three lines of Python that load an export from a folder, or from the hub."""
    places = {"timm": repr(f"{'hf-hub' if hub else 'local-dir'}:{folder}"), "folder": repr(folder)}
    if target == "eva":
        places["folder"] = folder
    return [line.format(**places) for line in LOADING[target]]


def upload_line(output: Path, run: Path) -> str:
    """The command that puts an export on the hub."""
    return f"hf upload USER/{shlex.quote(run.resolve().name)} {shlex.quote(str(output))}"


def _warning(data: str) -> str:
    return "> **Demo data**: trained on generated slides; it knows nothing of tissue.\n\n" if is_generated(data) else ""


def _facts(card: Mapping[str, Any], cohorts: Sequence[str]) -> str:
    made = card.get("provenance") or {}
    pairs = {
        "architecture": f"timm's `{card['arch']}`, patches of {card['patch_size']} px",
        "recipe": f"`{_plain(str(card['recipe']))}`, {card['step']:,} micro-steps",
        "went on": "; ".join(map(_plain, told(card.get(SEGMENTS, [])))),
        "trained on": ", ".join(map(_plain, cohorts)),
        "commit, configuration": f"`{made['commit']}`, `{made['config']}`" if made else "",
        "date": str(made.get("date", ""))[:10],
    }
    return "\n".join(f"- {name}: {value}" for name, value in pairs.items() if value)


def _scores(results: Sequence[Result]) -> str:
    if not results:
        return "None were there when this was written."
    demo = any(is_generated(result.data) for result in results)
    head = "Scores on demo data say nothing about real tissue.\n\n" if demo else ""
    rows = [
        f"| {_plain(item.task)} | {item.size} | {item.pooling} | {item.metric} | {item.mean:.3f} | "
        f"{item.protocol} | {item.data} |"
        for item in results
    ]
    return head + "\n".join(["| task | px | pooling | metric | mean | protocol | data |", "|---" * 7 + "|", *rows])


def _plain(text: str) -> str:
    """A name that is no Markdown and no HTML."""
    return "".join(f"&#{ord(mark)};" if mark in "<>&|`*[]\\\n" else mark for mark in text)
