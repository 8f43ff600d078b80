"""Data walks one way: a later room of the house may import an earlier one, never the reverse."""

import ast
import re
from pathlib import Path

import pytest

ROOMS = ["slides", "tissue", "tiles", "ssl", "evaluate", "mil", "report", "screen", "demo"]
SOURCE = Path(__file__).resolve().parents[1] / "src" / "midnight"


def imported_rooms(path: Path) -> set[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("midnight.")} & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_a_later_one(room: str) -> None:
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    assert {str(path): imported_rooms(path) - allowed for path in files if imported_rooms(path) - allowed} == {}


def test_the_core_imports_no_room_but_the_command_line_does() -> None:
    files = [path for path in [*SOURCE.glob("*.py"), *(SOURCE / "config").glob("*.py")] if path.name != "cli.py"]
    assert {path.name: imported_rooms(path) for path in files if imported_rooms(path)} == {}


WITHIN_TILES = ["read", "draw", "augment", "predrawn", "folders"]


@pytest.mark.parametrize("room", WITHIN_TILES)
def test_within_tiles_too_no_room_imports_a_later_one(room: str) -> None:
    files = sorted((SOURCE / "tiles" / room).rglob("*.py"))
    assert files
    later = WITHIN_TILES[WITHIN_TILES.index(room) + 1 :]
    found = re.findall(r"from midnight\.tiles\.(\w+)", "\n".join(path.read_text() for path in files))
    assert set(found).isdisjoint(later)


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {name_of(path): path for path in SOURCE.rglob("*.py")}
    imports = {name: imported_modules(path, set(modules)) & modules.keys() - {name} for name, path in modules.items()}
    done: set[str] = set()
    while ready := {name for name in imports.keys() - done if imports[name] <= done}:
        done |= ready
    assert {name: imports[name] - done for name in imports.keys() - done} == {}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """Everything it imports at any time, inside of functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names & modules else {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found
