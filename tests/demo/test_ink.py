import numpy as np

from midnight.demo.ink import draw_ink


def test_three_inks_darken_a_small_part() -> None:
    image = np.full((1600, 1600, 3), 245, np.uint8)  # 1.6 mm, like a demo slide
    draw_ink(np.random.Generator(np.random.Philox(0)), image, 1.0)
    marked = (image < 200).any(2)
    assert 0.01 < marked.mean() < 0.4
    channels = image[marked].argmax(1)
    assert set(np.unique(channels)) == {0, 1, 2}
    assert (image[~marked].mean(0) > 235).all()


def test_marks_stay_on_a_small_slide() -> None:
    image = np.full((512, 1024, 3), 245, np.uint8)
    draw_ink(np.random.Generator(np.random.Philox(3)), image, 0.5)
    assert image.shape == (512, 1024, 3) and (image < 200).any()
