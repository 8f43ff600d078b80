from pathlib import Path

from midnight.tail import error_line, last_lines, read_tail


def test_a_progress_bar_is_its_last_state(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"0%\r50%\r100%\r\n\n  \nend\xff\n")
    assert read_tail(log) == ["100%", "end\ufffd"]


def test_of_a_huge_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"{i}\n" for i in range(200_000)))
    assert read_tail(log)[-1] == "199999" and len(read_tail(log)) < 40_000


def test_the_error_comes_first_only_where_it_is_not_among_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("2026 ERROR midnight: first\n2026 ERROR midnight: the cause\n")
    assert error_line(read_tail(log)) == "the cause"
    assert last_lines(log)[0].startswith("| ")
    with log.open("a") as file:
        file.write("x\n" * 20)
    assert last_lines(log)[:2] == ["error: the cause", "| x"]


def test_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "x.log") == [f"log: {tmp_path / 'x.log'} (No such file or directory)"]
    (tmp_path / "y.log").write_text("\n")
    assert last_lines(tmp_path / "y.log") == [f"log: {tmp_path / 'y.log'} (empty)"]
