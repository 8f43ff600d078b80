"""The nearest-neighbour classifier of DINO: needs no fitting, so it shows what an embedding holds as it is."""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07


@torch.no_grad()
def knn_predict(
    train: Tensor, labels: Tensor, test: Tensor, neighbours: int = NEIGHBOURS, temperature: float = TEMPERATURE
) -> Tensor:
    """Labels of test rows: the nearest train rows vote, each with exp(cosine / temperature) [DINO, k = 20, T = .07].

    Args:
        train: embeddings [N, D].
        labels: int64 [N], from 0.
        test: embeddings [M, D].
        neighbours: how many vote; all where there are fewer.
        temperature: of the votes' weights.

    Returns:
        int64 [M].
    """
    cosines = F.normalize(test.float(), dim=-1) @ F.normalize(train.float(), dim=-1).T
    nearest = cosines.topk(min(neighbours, len(train)), dim=-1)
    votes = F.one_hot(labels[nearest.indices]) * (nearest.values / temperature).exp().unsqueeze(-1)
    return votes.sum(dim=1).argmax(dim=-1)


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the labels of the share of their rows, int64 [M] each, that are predicted right; chance is 1/labels."""
    right = [float((predicted[labels == label] == label).float().mean()) for label in labels.unique()]
    return sum(right) / len(right)
