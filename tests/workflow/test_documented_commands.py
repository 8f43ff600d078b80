"""The commands of the READMEs and of the configurations' comments, as Snakemake understands them."""

import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "README.md",
    "config/README.md",
    *(f"config/{path.name}" for path in (REPOSITORY / "config").glob("*.yaml")),
]
COMMAND = re.compile(r"^(?:#\s*)?(snakemake --?\w.*|snakemake all.*)$|`(snakemake [^`…]*)`", re.MULTILINE)
MADE_BY_THE_READER = {"two.yaml"}


def commands(document: str) -> list[str]:
    text = (REPOSITORY / document).read_text(encoding="utf-8").replace("\\\n", " ")
    return [first or second for first, second in COMMAND.findall(text)]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_no_option_swallows_the_targets(document: str) -> None:
    for command in commands(document):
        arguments = get_argument_parser().parse_args(shlex.split(command, comments=True)[1:])
        files = [file for file in map(str, arguments.configfile or []) if file not in MADE_BY_THE_READER]
        assert all((REPOSITORY / file).is_file() for file in files), command
        assert all("=" in pair for pair in arguments.config or []), command
        assert set(arguments.forcerun or []) <= {"score"}, command


def test_there_are_such_commands() -> None:
    assert len(commands("README.md")) >= 6 and commands("config/demo-ablations.yaml")
