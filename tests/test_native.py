"""The compiled part gives the same pixels, whichever compiler and instruction set made it."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from midnight import native
from midnight.tiles.read.jpeg import Mosaic, Windows
from tests.native_build import PLAIN, build
from tests.tiles.read.jpegs import encoded, texture

BUILDS = {"cc": ("cc", ()), "baseline": ("cc", (PLAIN,)), "clang": ("clang", ()), "clang-14": ("clang-14", ())}


def decode(library: ctypes.CDLL) -> list[np.ndarray]:
    """Windows of a few JPEG tiles, at full and at half size."""
    windows = []
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        data = encoded(texture(256, 240), subsampling)
        mosaic = Mosaic(np.frombuffer(data, np.uint8), np.array([[[0, len(data)]]], np.int64), (240, 256), b"", True)
        windows += [Windows(library).window(mosaic, (12, 20, 96, 64), reduce) for reduce in (1, 2)]
    return windows


@pytest.mark.parametrize("name", BUILDS)
def test_every_build_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    installed = native.library()
    compiler, flags = BUILDS[name]
    if installed is None or not shutil.which(compiler):
        pytest.skip(f"no {compiler} on the PATH, or the package was installed without a C compiler")
    other = native._declared(ctypes.CDLL(str(build(tmp_path / "other.so", compiler, flags))))
    assert all(np.array_equal(a, b) for a, b in zip(decode(installed), decode(other), strict=True))


def ask(value: str) -> str:
    code = "from midnight import native; found = native.library(); print(found and found._name)"
    command, environment = [sys.executable, "-c", code], os.environ | {"MIDNIGHT_NATIVE": value}
    done: Sequence[str] = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()
    return done[0] if done else "failed"


def test_another_build_or_none_can_be_chosen(tmp_path: Path) -> None:
    assert ask("") == "None"
    assert ask(str(tmp_path / "absent.so")) == "failed"
    if shutil.which("cc"):
        assert ask(str(build(tmp_path / "chosen.so"))) == str(tmp_path / "chosen.so")
