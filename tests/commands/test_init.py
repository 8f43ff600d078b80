from pathlib import Path

import pytest

from midnight.cli import main
from midnight.commands.init import make_folder
from midnight.errors import MidnightError
from midnight.home import PARTS


def test_a_folder_with_all_that_the_workflow_needs(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path / "new" / "lab")])
    lab = tmp_path / "new" / "lab"
    assert {path.name for path in lab.iterdir()} == {*PARTS, "slurm"}
    assert (lab / "Snakefile").read_text() == (repository / "Snakefile").read_text()
    assert (lab / "slurm" / "config.yaml").is_file()
    assert not list(lab.rglob("__pycache__"))
    assert f"cd {lab}" in capsys.readouterr().out


def test_what_is_there_stays(tmp_path: Path) -> None:
    mine = tmp_path / "Snakefile"
    mine.write_text("mine")
    for folder in (tmp_path, mine):
        with pytest.raises(MidnightError, match="is not empty; name a new folder"):
            make_folder(folder)
    assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine]
