"""The predict pass with images out of thin air: nothing here imports kaiko-eva."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import embed as embed_module
from midnight.evaluate.embed import Part, check_names, embed, embed_task, embedding_key
from midnight.evaluate.entries import Dataset, Task
from midnight.evaluate.store import FEATURES, PARTIAL_SAMPLES, SAMPLES, read_embeddings
from midnight.evaluate.workers import torch_threads
from tests.evaluate.eva_example import MODELS, SIZE, tiny
from tests.waiting import comes_true

COUNTS = {"train": 50, "val": 30}
EVALUATION = Evaluation(protocol="demo", accelerator="cpu", workers=0, batch_size=8)
TASK = Task("tile", "T", "t", "M", "val", Dataset("data", "eva.X", splits={"train": "a", "val": "b"}), name="t")
TASKS = """
tasks:
  first: &first
    kind: tile
    label: First
    column: pc
    metric: BinaryBalancedAccuracy
    scored: val
    dataset: {class_path: eva.X, root: data, splits: {train: a, val: b}}
    protocols:
      demo: {runs: 1, batch_size: 1, lr: 1, weight_decay: 0, scheduler: {name: ConstantLR}, patience: 1, max_steps: 1}
  second: {<<: *first, label: Second, column: pc10}
  third: {<<: *first, dataset: {class_path: eva.X, root: data, splits: {train: a, val: c}}}
"""


@dataclass
class Noise:
    """Random images, each its own; notes which were read."""

    split: str
    delay: float = 0.0
    broken: int | None = None
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return COUNTS[self.split]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, dict[str, Any]]:
        if index == self.broken:
            raise SyntaxError("broken PNG file")
        time.sleep(self.delay)
        self.read.append(index)
        generator = torch.Generator().manual_seed(1000 * len(self.split) + index)
        return torch.randn(3, SIZE, SIZE, generator=generator), index % 3, {"wsi_id": f"slide{index // 9}"}

    def filename(self, index: int) -> str:
        return f"{self.split}/{index}.png"


def use_noise(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Noise]:
    parts = [Noise(split, **options) for split in COUNTS]
    opened = [Part(images.split, images) for images in parts]
    monkeypatch.setattr(embed_module, "open_parts", lambda *_: opened)
    return parts


def run(folder: Path, output: Path) -> dict[str, Any]:
    embed_task(tiny(folder), TASK, folder, "d", SIZE, EVALUATION, output, "tiny")
    return json.loads((output / "index.json").read_text())


KILLED = """
import sys
from pathlib import Path
import pytest, torch
from midnight.evaluate import store
from tests.evaluate.test_embed import run, use_noise
torch.set_num_threads(1)
store.CHECKPOINT_SECONDS = 0.0
use_noise(pytest.MonkeyPatch(), delay=0.02)
run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_job_is_gone_on_with_to_the_same_bits(
    make_model: Callable[[int], Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = make_model(4), tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(model), str(output)]
    process = subprocess.Popen(command, cwd=repository, env=os.environ | {"PYTHONPATH": str(repository)})
    log = output / PARTIAL_SAMPLES
    assert comes_true(lambda: log.is_file() and log.read_bytes().count(b"\n") >= 4, process, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / FEATURES).exists()
    resumed = use_noise(monkeypatch)
    with torch_threads(1):
        run(model, output)
    read = sum(len(part.read) for part in resumed)
    assert 0 < read <= sum(COUNTS.values()) - 3 * EVALUATION.batch_size
    use_noise(monkeypatch)
    with torch_threads(1):
        run(model, tmp_path / "whole")
    for name in (FEATURES, SAMPLES):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_rows_are_those_of_the_images(
    make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = use_noise(monkeypatch)
    index = run(make_model(4), tmp_path)
    assert index["counts"] == COUNTS
    assert (index["count"], index["precision"], index["dtype"]) == (80, "float32", "float32")
    stored, encoder = read_embeddings(tmp_path), tiny(make_model(4))
    for row, (part, number) in {0: (0, 0), 49: (0, 49), 50: (1, 0), 79: (1, 29)}.items():
        tokens = encoder.tokens(parts[part][number][0][None])[0]
        expected = torch.cat([tokens[0], tokens[5:].mean(0)])
        assert np.allclose(stored.features[row], expected.numpy(), atol=1e-5)
        split = parts[part].split
        sample = (split, f"{split}/{number}.png", float(number % 3), f"slide{number // 9}")
        assert tuple(stored.samples.iloc[row]) == sample


@pytest.mark.parametrize(("part", "index"), [(0, 28), (1, 20)])
def test_after_an_unreadable_image_what_is_done_stays(
    part: int, index: int, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(0)
    broken = use_noise(monkeypatch)[part]
    broken.broken = index
    with pytest.raises(MidnightError, match=rf"{broken.split}/{index}\.png: can't be read: broken PNG file"):
        run(model, tmp_path)
    parts = use_noise(monkeypatch)
    run(model, tmp_path)
    assert [len(other.read) for other in parts[:part]] == [0] * part
    assert 8 <= parts[part].read[0] <= index
    assert len(read_embeddings(tmp_path).features) == 80


def test_a_double_name_is_found_before_anything_is_computed() -> None:
    images = Noise("train")
    images.filename = lambda index: f"{index % 40}.png"  # type: ignore[method-assign]
    with pytest.raises(MidnightError, match=r"task t: 0\.png is there twice"):
        check_names(TASK, [Part("val", Noise("val")), Part("train", images)])
    assert not images.read


def test_in_bfloat16_the_features_hardly_change(
    make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(4)
    use_noise(monkeypatch)
    plain = run(model, tmp_path / "float32")
    monkeypatch.setattr(embed_module, "pick_precision", lambda *_: "bfloat16")
    half = run(model, tmp_path / "bfloat16")
    assert (half["precision"], half["dtype"]) == ("bfloat16", "float16")
    assert half["key"] != plain["key"]
    x, y = (np.asarray(read_embeddings(tmp_path / name).features, np.float64) for name in ("float32", "bfloat16"))
    assert np.mean(x.astype(np.float16) == y) < 0.5  # computed in bfloat16, not only stored in half
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert cosine.min() > 0.999
    assert (tmp_path / "bfloat16" / FEATURES).stat().st_size < 0.6 * (tmp_path / "float32" / FEATURES).stat().st_size


def test_the_key_follows_format_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    first = embedding_key("m", "d", SIZE, TASK, "float32")
    assert embedding_key("m", "d", SIZE, TASK, "bfloat16") != first
    monkeypatch.setattr(embed_module, "FORMAT", embed_module.FORMAT + 1)
    assert embedding_key("m", "d", SIZE, TASK, "float32") != first


def test_tasks_with_the_same_images_share_one_pass(
    make_model: Callable[[int], Path],
    use_registry: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_registry(TASKS, MODELS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").write_bytes(b"x")
    parts = use_noise(monkeypatch)
    evaluation = Evaluation(protocol="demo", data_root=str(tmp_path), accelerator="cpu", workers=0, batch_size=8)
    folders = {name: tmp_path / "out" / name for name in ("first", "second")}

    def embed_all(names: list[str]) -> int:
        """Images read."""
        before = sum(len(part.read) for part in parts)
        embed("tiny", make_model(0), SIZE, names, evaluation, {name: tmp_path / "out" / name for name in names})
        return sum(len(part.read) for part in parts) - before

    assert embed_all(list(folders)) == 80
    first, second = (read_embeddings(folder) for folder in folders.values())
    assert np.array_equal(first.features, second.features)
    assert first.samples.equals(second.samples)
    shutil.rmtree(folders["first"])
    assert embed_all(list(folders)) == 0
    assert np.array_equal(read_embeddings(folders["first"]).features, second.features)
    assert embed_all(["first", "second", "third"]) == 80  # another split: its own images
    with (tmp_path / "data" / "images").open("wb") as file:
        file.write(b"other")
    assert embed_all(["second"]) == 80
    assert read_embeddings(folders["first"]).index["key"] != read_embeddings(folders["second"]).index["key"]


def test_a_batch_is_given_when_the_next_one_is_launched() -> None:
    asked = []

    def batches() -> Any:
        for number in range(4):
            asked.append(number)
            yield number

    seen = [(batch, len(asked)) for batch in embed_module._one_behind(batches())]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(embed_module._one_behind(iter([]))) == []
