from pathlib import Path

import pytest
import torch

from midnight.errors import MidnightError
from midnight.evaluate.encoder import load_encoder
from midnight.evaluate.entries import Model
from midnight.evaluate.registry import load_models
from midnight.evaluate.weights import find_stored
from midnight.evaluate.weights.places import cache_folder, find_files
from tests.evaluate.weights.published import SIDE, make_hf, make_vit, write_file, write_hf_folder, write_timm_folder

GATED = Model(
    source="eva",
    label="U",
    sizes=[SIDE],
    model_name="pathology/mahmood_uni",
    repo="MahmoodLab/UNI",
    mean=(0.4, 0.4, 0.4),
    std=(0.5, 0.5, 0.5),
    gate="https://huggingface.co/MahmoodLab/UNI",
    name="uni",
)


@pytest.mark.parametrize(
    "place", ["uni/model.safetensors", "UNI/a.pth", "MahmoodLab/UNI/pytorch_model.bin", "uni.pth", "UNI.safetensors"]
)
def test_a_local_copy_is_found_by_name_or_repository(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (tmp_path / "uni-2.pth").touch()
    (tmp_path / "UNI2-h").mkdir()
    expected = path if path.parent == tmp_path else path.parent
    assert find_stored([tmp_path / "absent", tmp_path], "uni", "MahmoodLab/UNI") == expected
    assert find_stored([tmp_path], "virchow2", "paige-ai/Virchow2") is None
    assert find_stored([tmp_path], "other", None) is None


def test_weights_dir_goes_before_the_library_and_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MidnightError, match=r"HF_TOKEN .* or put them as uni or MahmoodLab/UNI into .*cache"):
        load_encoder(GATED, None, SIDE)
    vit = make_vit()
    write_timm_folder(vit, tmp_path / "weights" / "MahmoodLab" / "UNI", "vit_tiny_patch16_224", {})
    encoder = load_encoder(GATED, None, SIDE, str(tmp_path / "weights"))
    assert encoder.mean == GATED.mean
    images = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.allclose(encoder.tokens(images), vit.forward_features(images), atol=1e-4)


def test_the_cache_of_hugging_face_goes_before_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hub"
    (tmp_path / "hub" / "models--MahmoodLab--uni" / "snapshots" / "empty").mkdir(parents=True)
    with pytest.raises(MidnightError, match="where there are none now"):
        load_encoder(GATED, None, SIDE)
    write_hf_folder(make_hf("vit"), tmp_path / "hub" / "models--MahmoodLab--uni" / "snapshots" / "empty")
    assert load_encoder(GATED, None, SIDE).dim == 192


def test_every_gated_model_names_its_repository() -> None:
    gated = {name: model for name, model in load_models().items() if model.gate}
    assert {name: f"https://huggingface.co/{model.repo}" for name, model in gated.items()} == {
        name: model.gate for name, model in gated.items()
    }


def test_folders_without_clear_weights(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match="no such file or folder of weights"):
        find_files(tmp_path / "absent")
    with pytest.raises(MidnightError, match=r"no weights in it \(teacher\.safetensors, model\.safetensors"):
        find_files(tmp_path)
    for name in ("a.pth", "b.pth"):
        write_file(tmp_path / name, {"x": torch.zeros(1)})
    with pytest.raises(MidnightError, match=r"several files of weights \(a\.pth, b\.pth\); name one"):
        find_files(tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints" / "step_00000007").mkdir(parents=True)
    with pytest.raises(MidnightError, match=r"has not ended; name one of its checkpoints, e\.g\. .*step_00000007"):
        find_files(run)
    index = tmp_path / "index"
    write_hf_folder(make_hf("vit"), index, shard="1MB")
    sorted(index.glob("*.safetensors"))[0].unlink()
    with pytest.raises(MidnightError, match=r"00001-of-.*: missing, but model\.safetensors\.index\.json names it"):
        find_files(index)
