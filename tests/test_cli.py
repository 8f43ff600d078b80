import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from midnight.cli import main
from midnight.ssl.budget.cost import GPUS
from tests.tissue.small_slides import tissue_image, write_slide


def test_config_show_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "midnight-12k"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["iterations"] == 1_000_000
    assert shown["tiles"]["mpps"] == [0.25, 0.5, 1.0, 2.0]


def test_config_show_says_below_the_recipe_what_a_run_takes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "ablation", "--gpu", "a100", "--mfu", "0.4", "--price", "1.25", "--watts", "350"])
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["name"] == "ablation"
    assert "at 40% MFU of A100 (312 TFLOP/s bfloat16, dense), 1.25 USD per GPU-hour, 350 W per GPU" in out
    for what in ("parameters", "FLOPs per image", "memory per GPU", "GPU-hours", "cost", "energy", "fits H200, 141 GB"):
        assert f"\n# {what}" in out or f"\n#   {what}" in out


def test_config_show_json_has_recipe_and_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "ablation", "--json", "--price", "2"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"]["name"] == "ablation"
    assert shown["parameters"]["student"] > shown["parameters"]["backbone"] > 80e6
    assert shown["cost"]["usd"] == pytest.approx(2 * shown["cost"]["gpu_hours"])
    assert [plan["own"] for plan in shown["memory_per_gpu"]].count(True) == 1


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_can_be_named(gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "demo", "--gpu", gpu])
    assert f"MFU of {GPUS[gpu].name}" in capsys.readouterr().out


def test_a_share_of_the_peak_above_1_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^midnight: error: --mfu: 45\.0 is no share"):
        main(["config", "show", "demo", "--mfu", "45"])


def test_unknown_recipe_is_one_line_and_status_1() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "midnight.cli", "config", "show", "nope"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.startswith("midnight: error: unknown recipe 'nope'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["doctor"],
        ["config"],
        ["config", "show"],
        ["export"],
        ["slides", "pin"],
        ["tiles", "show"],
        ["tiles", "plan"],
        ["tasks", "status"],
        ["tasks", "prepare"],
        ["quick-check"],
        ["embed"],
        ["summary"],
        ["evaluate"],
    ],
)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "usage: midnight" in capsys.readouterr().out


def test_tiles_show_takes_a_resolution_and_a_segmenter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blind = write_slide(tmp_path / "blind.svs", tissue_image(900, 900, [(60, 60, 780, 780)]), None)
    sheet = str(tmp_path / "sheet.png")
    with pytest.raises(SystemExit, match=r"blind\.svs: no resolution"):
        main(["tiles", "show", str(blind), "--output", sheet])
    main(["tiles", "show", str(blind), "--output", sheet, "--mpp", "0.5", "--count", "2"])
    assert capsys.readouterr().out == f"{sheet}\n"
    brown = tissue_image(900, 900, [])
    brown[60:840, 60:840] = (150, 110, 70)
    slide = str(write_slide(tmp_path / "brown.svs", brown, 0.5))
    with pytest.raises(SystemExit, match=r"set tissue\.segmenter: otsu"):
        main(["tiles", "show", slide, "--output", sheet])
    main(["tiles", "show", slide, "--output", sheet, "--segmenter", "otsu", "--count", "2"])


@pytest.mark.parametrize("mpp", ["0", "-1", "nan", "inf", "fine"])
def test_a_resolution_is_a_positive_number(mpp: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tiles", "show", "x.svs", "--mpp", mpp])
    assert caught.value.code == 2
    assert "argument --mpp:" in capsys.readouterr().err
