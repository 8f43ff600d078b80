import math

import pytest
import torch

from midnight.ssl.monitor.knn import balanced_accuracy, knn_predict

TRAIN = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
LABELS = torch.tensor([2, 0, 0, 1])


def test_one_neighbour_is_the_nearest_by_angle() -> None:
    test = torch.tensor([[100.0, 1.0], [-0.01, 0.0], [0.0, 3.0]])
    assert knn_predict(TRAIN, LABELS, test, neighbours=1).tolist() == [2, 1, 0]


def test_near_votes_weigh_more_the_colder_and_counts_decide_when_hot() -> None:
    nearly_right = torch.tensor([[1.0, 0.6]])
    assert knn_predict(TRAIN, LABELS, nearly_right, temperature=0.07).tolist() == [2]
    assert knn_predict(TRAIN, LABELS, nearly_right, temperature=1e3).tolist() == [0]


def test_votes_are_dinos() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(60, 5, generator=generator), torch.randn(30, 5, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    expected = []
    for row in test:
        cosines = sorted(
            (
                (float(torch.cosine_similarity(row, other, dim=0)), int(label))
                for other, label in zip(train, labels, strict=True)
            ),
            reverse=True,
        )[:20]
        votes = [sum(math.exp(cosine / 0.07) for cosine, label in cosines if label == wanted) for wanted in range(4)]
        expected.append(votes.index(max(votes)))
    assert knn_predict(train, labels, test).tolist() == expected


def test_accuracy_counts_labels_equally() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1])
    assert balanced_accuracy(torch.zeros(5, dtype=torch.int64), labels) == pytest.approx(0.5)
    assert balanced_accuracy(labels, labels) == 1
