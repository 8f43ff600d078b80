import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from midnight.errors import ConfigError, MidnightError
from midnight.evaluate.images import build_object, find_class, load_batches, task_root
from midnight.evaluate.registry import load_tasks
from midnight.evaluate.workers import torch_threads


class Images:
    def __init__(self, n: int, broken: int | None = None) -> None:
        self.n, self.broken, self.threads = n, broken, set[str]()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        self.threads.add(threading.current_thread().name)
        if index == self.broken:
            raise OSError("cannot identify image file")
        return torch.full((3, 2, 2), float(index)), torch.tensor(index), {"i": index}

    def filename(self, index: int) -> str:
        return f"tile{index}.png"


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("n", [1, 8, 11])
def test_all_items_in_order(workers: int, n: int) -> None:
    images = Images(n)
    batches = list(load_batches(images, 4, workers))
    assert torch.cat([batch for batch, _ in batches])[:, 0, 0, 0].tolist() == list(range(n))
    assert [item[1]["i"] for _, items in batches for item in items] == list(range(n))
    assert (threading.current_thread().name in images.threads) == (workers == 0)


def test_the_callers_thread_decodes_alone() -> None:
    class Counting(Images):
        def __getitem__(self, index: int) -> Any:
            assert torch.get_num_threads() == 1
            return super().__getitem__(index)

    with torch_threads(3):
        for _ in load_batches(Counting(6), 2, workers=0):
            assert torch.get_num_threads() == 3  # the model's own


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [3, 8, 11])
def test_from_an_item_on(workers: int, start: int) -> None:
    batches = list(load_batches(Images(11), 4, workers, start))
    assert [item[1]["i"] for _, items in batches for item in items] == list(range(start, 11))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named(workers: int) -> None:
    with pytest.raises(MidnightError, match=r"tile5\.png: can't be read"):
        list(load_batches(Images(9, broken=5), 4, workers))


def test_missing_data_say_where_to_get_them(tmp_path: Path) -> None:
    task = load_tasks()["bracs"]
    with pytest.raises(MidnightError) as caught:
        task_root(task, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "bracs") in message
    assert "https://www.bracs.icar.cnr.it" in message
    assert "CC BY-NC 4.0" in message
    (tmp_path / "bracs").mkdir()
    assert task_root(task, tmp_path) == tmp_path / "bracs"


def test_only_trusted_classes() -> None:
    for name in ("os.system", "subprocess.Popen", "evaluate.X"):
        with pytest.raises(ConfigError, match="is not of"):
            find_class(name)
    with pytest.raises(ConfigError, match="can't import"):
        find_class("midnight.evaluate.images.Nothing")


def test_objects_from_descriptions() -> None:
    spec = {"a": [{"class_path": "midnight.errors.MidnightError"}], "b": 1}
    built = build_object(spec)
    assert isinstance(built["a"][0], MidnightError)
    assert built["b"] == 1
