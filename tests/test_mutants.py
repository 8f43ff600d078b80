"""The list of deliberate faults stays applicable; `make mutate` runs it."""

from pathlib import Path

import pytest

from tests.mutants.mutate import PAGE, ROOT, Mutant, apply, page, read_mutants, read_reasons, survives


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.line)
def test_each_fault_can_be_applied_and_has_its_tests(mutant: Mutant, tmp_path: Path) -> None:
    (tmp_path / "src" / "midnight" / mutant.file).parent.mkdir(parents=True)
    apply(mutant, tmp_path)
    changed = (tmp_path / "src" / "midnight" / mutant.file).read_text(encoding="utf-8")
    compile(changed, mutant.file, "exec")
    assert changed != mutant.source.read_text(encoding="utf-8")
    assert all((ROOT / name).exists() for name in mutant.tests.split())


def test_a_text_that_is_not_there_once_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is there 0 times"):
        apply(Mutant("ssl/monitor/knn.py", "no such text", "", "tests/ssl/monitor/test_knn.py"), tmp_path)


def test_the_page_is_of_this_list_and_survivors_have_reasons() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n| ") == len(read_mutants()) + 1
    assert "no reason yet" not in text
    lines = {mutant.line for mutant in read_mutants()}
    assert set(read_reasons()) <= lines, "a reason for a fault that is no more in the list"
    assert "| ssl/monitor/knn.py | `a \\| b` | nothing | survived: why |" in page(
        [(Mutant("ssl/monitor/knn.py", "a | b", "", "t"), True)], {"ssl/monitor/knn.py: a | b → nothing": "why"}
    )


@pytest.mark.slow
def test_a_fault_is_noticed() -> None:
    seen = Mutant("ssl/monitor/outcome.py", "FLAT = 0.995", "FLAT = 0.5", "tests/ssl/monitor/test_outcome.py")
    assert not survives(seen)[0]
