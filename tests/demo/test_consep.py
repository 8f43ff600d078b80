import numpy as np

from midnight.demo.consep import make_labels


def test_labels_are_renumbered_with_their_types_and_centres() -> None:
    instances = np.zeros((10, 12), np.int32)
    types = np.zeros((10, 12), np.uint8)
    instances[1:3, 2:6], types[1:3, 2:6] = 40, 2
    instances[5:8, 7:10], types[5:8, 7:10] = 7, 5
    labels = make_labels(instances, types)
    assert set(np.unique(labels["inst_map"])) == {0, 1, 2}
    assert labels["inst_type"].ravel().tolist() == [5, 2]
    assert np.allclose(labels["inst_centroid"], [[8, 6], [3.5, 1.5]])
    assert np.array_equal(labels["inst_map"] > 0, types > 0)


def test_full_and_empty_fields() -> None:
    full = make_labels(np.full((4, 4), 9, np.int32), np.full((4, 4), 3, np.uint8))
    assert (full["inst_map"] == 1).all() and full["inst_type"].tolist() == [[3]]
    empty = make_labels(np.zeros((4, 4), np.int32), np.zeros((4, 4), np.uint8))
    assert empty["inst_type"].shape == (0, 1) and empty["inst_centroid"].shape == (0, 2)
