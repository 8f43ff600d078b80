from pathlib import Path

import pytest
import torch

from midnight.ssl.checkpoint.pieces import Piece, PieceFiles, fill, own_pieces, write_pieces


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t{n}": torch.randn(n + 1, 3, generator=generator) for n in range(9)}
    return tensors | {"scalar": torch.tensor(7.5), "half": torch.ones(4, dtype=torch.bfloat16)}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_parts_of_all_processes_are_the_whole(tmp_path: Path, world: int) -> None:
    files = [tmp_path / f"{rank}.safetensors" for rank in range(world)]
    sizes = []
    for rank, file in enumerate(files):
        pieces = own_pieces(state(), rank, world)
        sizes.append(sum(piece.values.nbytes for piece in pieces.values()))
        write_pieces(file, pieces)
    shards = PieceFiles(files)
    assert set(shards) == set(state())
    for name, value in state().items():
        assert torch.equal(shards[name], value)
        assert shards[name].dtype == value.dtype
    assert max(sizes) - min(sizes) <= max(value.nbytes for value in state().values())


def test_rows_are_put_together_in_order_whoever_wrote_them(tmp_path: Path) -> None:
    rows = torch.arange(10.0).view(5, 2)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_pieces(files[0], {"w": Piece(3, (5, 2), rows[3:].clone())})
    write_pieces(files[1], {"w": Piece(0, (5, 2), rows[:3].clone())})
    assert torch.equal(PieceFiles(files)["w"], rows)
    with pytest.raises(ValueError, match=r"w: \[2, 2\] of \[5, 2\]"):
        PieceFiles(files[:1])["w"]


def test_copies_are_of_the_moment() -> None:
    weight = torch.ones(3)
    piece = own_pieces({"w": weight}, 0, 1)["w"]
    weight.zero_()
    assert torch.equal(piece.values, torch.ones(3))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a tensor of \[2\] where \[3\] is needed"):
        fill(torch.zeros(3), torch.zeros(2))
