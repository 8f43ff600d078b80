import pytest
import torch

from midnight.config import Heads
from midnight.ssl.heads import DINOHead


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_logits_are_cosines_with_prototypes(layers: int) -> None:
    head = DINOHead(16, Heads(prototypes=40, hidden=24, bottleneck=8, layers=layers))
    tokens = torch.randn(5, 16)
    logits = head(tokens)
    assert logits.shape == (5, 40)
    assert len([layer for layer in head.mlp if isinstance(layer, torch.nn.Linear)]) == layers
    projected = head.mlp(tokens)
    expected = torch.cosine_similarity(projected[:, None], head.prototypes[None], dim=-1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_length_of_prototypes_does_not_matter() -> None:
    head = DINOHead(16, Heads(prototypes=10, hidden=24, bottleneck=8))
    tokens = torch.randn(3, 16)
    before = head(tokens)
    head.prototypes.data *= 7
    torch.testing.assert_close(head(tokens), before)
