import numpy as np

from midnight.demo.classes import TissueClass
from midnight.demo.patch_camelyon import CANVAS_UM, CENTRE, MIN_TUMOUR, SIDE, draw_places


def test_labels_follow_the_central_tumour() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    classes = np.full((CANVAS_UM, CANVAS_UM), TissueClass.STROMA, np.uint8)
    classes[:, CANVAS_UM // 2 :] = TissueClass.TUMOUR
    margin = (SIDE - CENTRE) // 2
    for label in (0, 1):
        places = draw_places(rng, classes, label, 25)
        assert len(places) == 25
        for y, x in places:
            centre = classes[y + margin : y + margin + CENTRE, x + margin : x + margin + CENTRE]
            share = (centre == TissueClass.TUMOUR).mean()
            assert share >= MIN_TUMOUR if label else share == 0


def test_no_place_where_there_is_none() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    fat = np.full((CANVAS_UM, CANVAS_UM), TissueClass.FAT, np.uint8)
    assert draw_places(rng, fat, 0, 5).shape == (0, 2) and draw_places(rng, fat, 1, 5).shape == (0, 2)
