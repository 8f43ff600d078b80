"""The lock, the conda file, the container and pyproject agree."""

import re
import tomllib
from pathlib import Path

import yaml


def locked(path: Path) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def required(repository: Path) -> list[str]:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]["dependencies"]


def test_every_dependency_is_locked_at_its_pinned_version(repository: Path) -> None:
    pins = locked(repository / "envs" / "requirements.lock")
    for requirement in required(repository):
        name, _, version = re.sub(r"\[.*?\]", "", requirement).partition("==")
        name = re.split(r"[<>~!;]", name)[0].strip()
        assert name in pins, requirement
        assert not version or pins[name] == {version}, requirement


def test_dev_lock_extends_the_lock_without_changing_it(repository: Path) -> None:
    run, dev = (locked(repository / "envs" / f"requirements{kind}.lock") for kind in ("", "-dev"))
    assert {name: dev.get(name) for name in run} == run
    assert set(dev) - set(run) >= {"pytest", "ruff", "mypy", "snakefmt", "hypothesis"}


def test_every_pin_has_a_hash_and_no_address(repository: Path) -> None:
    for path in (repository / "envs").glob("*.lock"):
        text = path.read_text()
        assert "://" not in text
        blocks = re.split(r"\n(?=[a-z])", text.strip())
        assert all("--hash=sha256:" in block for block in blocks)


def test_conda_and_container_install_the_lock(repository: Path) -> None:
    conda = yaml.safe_load((repository / "envs" / "midnight.yaml").read_text())
    pip = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert pip == ["--require-hashes", "-r requirements.lock"]
    python = (repository / ".python-version").read_text().strip()
    assert f"python={python}" in conda["dependencies"]
    definition = (repository / "envs" / "midnight.def").read_text()
    assert f"python:{python}-slim" in definition
    assert "--require-hashes -r /opt/midnight/envs/requirements.lock" in definition


def test_jsonargparse_stays_below_the_release_that_breaks_eva(repository: Path) -> None:
    (version,) = locked(repository / "envs" / "requirements.lock")["jsonargparse"]
    assert tuple(map(int, version.split(".")[:2])) < (4, 52)
