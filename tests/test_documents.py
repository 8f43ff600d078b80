"""What the documents for people name is there: paths, rules, rooms, tools."""

import re
from pathlib import Path

import pytest
import yaml

from tests.test_layers import ROOMS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("CONTRIBUTING.md", "docs/architecture.md", "CHANGELOG.md", ".github/pull_request_template.md")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    code = [word.split()[0].rstrip("/") for word in re.findall(r"`((?:src|tests|config|rules|docs)/[^`]+)`", text)]
    assert [word for word in code if "RUN" not in word and not (ROOT / word).exists()] == []
    assert links or code


def test_the_architecture_has_every_rule_and_every_room() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    rules = set(re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE))
    table = re.search(r"## What rules write\n(.+?)\n## ", ARCHITECTURE, re.DOTALL)
    assert table
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", table[1], re.MULTILINE)))) == rules
    assert re.findall(r"^\| `(\w+)` \|", ARCHITECTURE.split("## Rooms")[1].split("## ")[0], re.MULTILINE) == ROOMS


def test_every_step_of_the_paper_has_its_place() -> None:
    rows = re.findall(
        r"^\| (.+?) \| `(.+?)` \| `(.+?)` \| .+ \|$", (ROOT / "docs" / "paper.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 15
    words = " ".join(step for step, *_ in rows)
    for word in ("U-Net", "40 %", "HSV", "HED", "uniform", "µm/px", "KDE", "DINOv2", "392", "CLS", "±", "ridge"):
        assert word in words
    for step, path, name in rows:
        assert re.search(rf"\b{re.escape(name)}", (ROOT / path).read_text(encoding="utf-8")), step


def test_every_word_of_the_glossary_has_its_place() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+? \| `(.+?)` \| `(.+?)` \|$", text, re.MULTILINE)
    assert len(rows) >= 25 and len({word for word, *_ in rows}) == len(rows)
    for word, path, name in rows:
        assert re.search(rf"\b{re.escape(name)}\b", (ROOT / path).read_text(encoding="utf-8")), word


def test_checks_before_a_commit_are_those_of_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks}
    assert tools == {"ruff", "mypy", "snakefmt"} and all(f"$(BIN)/{tool}" in lint for tool in tools)
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks), "the locked versions"


def test_the_forms_and_the_actions_can_be_read() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert ".ci/run" in [step.get("run") for step in ci["jobs"]["ci"]["steps"]]
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(path.read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] in (ROOT / "pyproject.toml").read_text()
    assert {"cff-version", "title", "message", "authors"} <= set(citation)
