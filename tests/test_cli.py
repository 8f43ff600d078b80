import subprocess
import sys

import pytest
import yaml

from midnight.cli import main


def test_config_show_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "show", "midnight-12k"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["training"]["iterations"] == 1_000_000
    assert shown["tiles"]["mpps"] == [0.25, 0.5, 1.0, 2.0]


def test_unknown_recipe_is_one_line_and_status_1() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "midnight.cli", "config", "show", "nope"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.startswith("midnight: error: unknown recipe 'nope'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [[], ["doctor"], ["config"], ["slides", "pin"], ["tiles", "show"], ["tiles", "plan"]]
)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "usage: midnight" in capsys.readouterr().out
