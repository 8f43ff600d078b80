import numpy as np
import pytest

from midnight.demo import render as render_module
from midnight.demo.classes import Nucleus, TissueClass
from midnight.demo.render import render
from midnight.demo.scene import Fibres, Scene, build_scene, draw_membranes

ORDER = (TissueClass.FAT, TissueClass.STROMA, TissueClass.GLAND, TissueClass.LYMPHOCYTES, TissueClass.TUMOUR)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Five stripes of 200 µm, one per class, 400 µm high."""
    classes = np.repeat(np.array(ORDER, np.uint8), 200)[None].repeat(400, 0)
    return build_scene(rng(), classes)


def kinds_in(scene: Scene, value: TissueClass) -> np.ndarray:
    x = scene.cells.centre[:, 0]
    start = ORDER.index(value) * 200
    return np.bincount(scene.cells.kind[(x > start + 10) & (x < start + 190)], minlength=len(Nucleus))


def test_each_class_has_its_nuclei(scene: Scene) -> None:
    dominant = {
        TissueClass.STROMA: Nucleus.FIBROBLAST,
        TissueClass.GLAND: Nucleus.EPITHELIAL,
        TissueClass.LYMPHOCYTES: Nucleus.LYMPHOCYTE,
        TissueClass.TUMOUR: Nucleus.TUMOUR,
    }
    for value, kind in dominant.items():
        assert kinds_in(scene, value).argmax() == kind
    assert kinds_in(scene, TissueClass.FAT).sum() == 0
    counts = [kinds_in(scene, value).sum() for value in ORDER]
    assert counts[3] > 2 * counts[4] > 2 * counts[1]


def test_fat_is_empty_but_for_thin_walls(scene: Scene) -> None:
    planes = render(scene, 0.5)
    fat = planes[1][20:-20, 20:380]
    assert (fat < 5).mean() > 0.75 and (fat > 10).mean() > 0.02
    assert planes[1][:, 440:760].mean() > 35


def test_walls_only_in_fat() -> None:
    classes = np.full((200, 200), TissueClass.STROMA, np.uint8)
    assert not draw_membranes(classes, 1).any()
    classes[:, :100] = TissueClass.FAT
    walls = draw_membranes(classes, 1)
    assert walls[:, :100].any() and not walls[:, 101:].any()


def test_fibre_direction_follows_lines_of_equal_v() -> None:
    y, x = np.mgrid[0:100, 0:100].astype(np.float32)
    points = np.array([[50.0, 50.0], [20.0, 70.0]], np.float32)
    for angle in (0.0, 0.5, 2.0):
        course = Fibres(angle, np.zeros_like(x), np.zeros_like(x))
        turn = (course.direction(points) - angle + np.pi / 2) % np.pi - np.pi / 2
        assert np.abs(turn).max() < 1e-6
    sloping = Fibres(0.0, np.zeros_like(x), -0.5 * x)
    assert np.allclose(sloping.direction(points), np.arctan2(0.5, 1), atol=1e-3)
    assert y.shape == x.shape


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_planes_have_the_scene_at_its_resolution(scene: Scene, mpp: float) -> None:
    planes = render(scene, mpp)
    assert planes.shape == (2, 400 / mpp, 1000 / mpp) and planes.dtype == np.uint8
    reference = render(scene, 1.0)
    assert planes.mean((1, 2)) == pytest.approx(reference.mean((1, 2)), rel=0.1)


def test_strips_leave_no_seam(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    in_strips = render(scene, 0.5)
    monkeypatch.setattr(render_module, "STRIP", 4096)
    whole = render(scene, 0.5)
    assert (in_strips != whole).mean() < 0.001
