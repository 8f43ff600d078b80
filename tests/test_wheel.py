"""The package without its checkout: built, unpacked, and run from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A wheel's content, built from the sdist."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("no uv beside this Python, nor on the PATH: no wheel can be built")
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=repository, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: its own files can't be told from others")
    for name in tracked.stdout.splitlines():
        if (repository / name).is_file() and not name.startswith(("tests/", "benchmarks/", "docs/")):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, target)
    command = [uv, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder / "out"]
    built = subprocess.run([*command, folder / "source"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != "MIDNIGHT_WORKFLOW"}
    environment = given | {"PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_works_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    where = run(
        site, tmp_path, "-c", "import midnight, midnight.home as home; print(midnight.__file__, home.installed())"
    )
    assert where.stdout.split() == [f"{site}/midnight/__init__.py", f"{site}/midnight/project"], where.stderr
    for room in ("report", "tissue"):
        assert list((site / "midnight" / room / "templates").glob("*.html.j2")), room
    shown = run(site, tmp_path, "-m", "midnight.cli", "config", "show", "midnight-12k")
    assert shown.returncode == 0 and "vit_giant" in shown.stdout, shown.stderr
    made = run(site, tmp_path, "-m", "midnight.cli", "init", "lab")
    assert made.returncode == 0, made.stderr
    lab = tmp_path / "lab"
    planned = run(site, lab, "-m", "snakemake", "-n", "--profile", "profiles/demo", "all")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "Training demo" in planned.stdout + planned.stderr
    code = "from midnight.provenance import git_commit, lock_hash; print(git_commit()); print(lock_hash())"
    commit, lock = run(site, lab, "-c", code).stdout.splitlines()
    assert commit.startswith("version ") and len(lock) == 16
