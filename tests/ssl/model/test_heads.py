import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm

from midnight.config import Heads
from midnight.ssl.model.heads import DINOHead


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_logits_are_cosines_with_prototypes(layers: int) -> None:
    head = DINOHead(16, Heads(prototypes=40, hidden=24, bottleneck=8, layers=layers, prototype_length="fixed"))
    tokens = torch.randn(5, 16)
    logits = head(tokens)
    assert logits.shape == (5, 40)
    assert len([layer for layer in head.mlp if isinstance(layer, torch.nn.Linear)]) == layers
    projected = head.mlp(tokens)
    expected = torch.cosine_similarity(projected[:, None], head.prototypes[None], dim=-1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_length_of_a_direction_does_not_matter() -> None:
    head = DINOHead(16, Heads(prototypes=10, hidden=24, bottleneck=8))
    tokens = torch.randn(3, 16)
    before = head(tokens)
    head.prototypes.data *= 7
    torch.testing.assert_close(head(tokens), before)


def test_prototypes_learn_as_dinov2s_do() -> None:
    """Its last layer is torch's old weight norm with a trained length of 1 at first, decayed like all matrices."""
    head = DINOHead(16, Heads(prototypes=10, hidden=24, bottleneck=8))
    assert head.prototype_lengths is not None and torch.equal(head.prototype_lengths, torch.ones(10, 1))
    layer = weight_norm(nn.Linear(8, 10, bias=False))
    layer.weight_g.data.fill_(1)
    layer.weight_v.data.copy_(head.prototypes)
    ours, theirs = [head.prototype_lengths, head.prototypes], [layer.weight_g, layer.weight_v]
    optimizers = [torch.optim.AdamW(each, lr=0.05, weight_decay=0.2) for each in (ours, theirs)]
    for _ in range(5):
        tokens, target = torch.randn(6, 16), torch.randint(10, (6,))
        with torch.no_grad():
            projected = F.normalize(head.mlp(tokens), dim=-1)
        F.cross_entropy(head(tokens), target).backward()
        F.cross_entropy(layer(projected), target).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        head.mlp.zero_grad()
        for own, reference in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, reference, atol=1e-5, rtol=1e-4)
    assert float((head.prototype_lengths - 1).abs().max()) > 0.05


def test_fixed_lengths_have_no_parameter() -> None:
    head = DINOHead(16, Heads(prototypes=10, hidden=24, bottleneck=8, prototype_length="fixed"))
    assert [name for name, _ in head.named_parameters() if "prototype" in name] == ["prototypes"]


@pytest.mark.parametrize("bottleneck", [256, 384])
def test_directions_start_as_long_as_dinov2s(bottleneck: int) -> None:
    """nn.Linear's uniform init: 1 / √3, whatever the width; short ones would turn faster."""
    head = DINOHead(16, Heads(prototypes=500, hidden=24), bottleneck)
    assert head.prototypes.shape == (500, bottleneck)
    assert float(head.prototypes.norm(dim=-1).mean()) == pytest.approx(3**-0.5, rel=0.01)
