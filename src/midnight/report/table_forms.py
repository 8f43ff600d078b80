"""Tables as CSV, Markdown and LaTeX."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from midnight.atomic import write_text
from midnight.evaluate.entries import POOLINGS
from midnight.evaluate.plus_minus import Average
from midnight.report.formatting import ABSENT, number
from midnight.report.scores import Score
from midnight.report.tables import Cell, Row, Table, build_further, build_tables


def heading(table: Table) -> str:
    """Title with what the rows are: data and protocol."""
    if table.data == "published":
        return f"{table.title} (published)"
    data = "demo data, not comparable with published numbers" if table.data == "demo" else "real data"
    return f"{table.title} ({data}; protocol {table.protocol})"


def average_heading(table: Table) -> str:
    """`Avg.` when every average covers all columns, else what it covers."""
    labels = dict.fromkeys(row.average.label for row in table.rows if row.average and not row.average.complete)
    if not labels:
        return "Avg."
    return f"Avg. ({next(iter(labels))})" if len(labels) == 1 else "Avg. (partial, see each row)"


def to_csv(tables: Sequence[Table], bold: int = 1) -> str:
    """One row per model, size and pooling; two columns (value, ±) per task, empty where not run."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    keys = [column.key for column in tables[0].columns] if tables else []
    keys = list(dict.fromkeys(column.key for table in tables for column in table.columns)) or keys
    pairs = [name for key in keys for name in (key, f"{key}_pm")]
    means = ["average", "average_pm", "average_columns"] if not tables or tables[0].has_average else []
    writer.writerow(["model", "label", "size", "pooling", "data", "protocol", *pairs, *means])
    for table in tables:
        for row in table.rows:
            cells = [row.cells.get(key, Cell()) for key in keys]
            values = [_plain(x) for cell in cells for x in (cell.value, cell.error)]
            identity = [row.model, row.label, row.size or "", row.pooling, table.data, table.protocol]
            writer.writerow([*identity, *values, *(_average_csv(row.average) if means else [])])
    return output.getvalue()


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _average_csv(average: Average | None) -> list[str]:
    if average is None:
        return ["", "", "0"]
    return [_plain(average.value), _plain(average.error), str(average.n)]


def _texts(row: Row, table: Table, bold: int, strong: str, joint: str) -> list[str]:
    cells = [_text(row.cells[c.key], c.key, table.digits, bold, strong, joint) for c in table.columns]
    if table.has_average:
        mean = row.average
        cell = Cell(mean.value, mean.error, rank=row.average_rank) if mean else Cell()
        cells.append(_text(cell, "average", table.digits, bold, strong, joint))
    return cells


def _text(cell: Cell, key: str, digits: int, bold: int, strong: str, joint: str) -> str:
    if cell.value is None:
        return ABSENT
    digits = 3 if key in ("hest", "average") else digits
    text = number(cell.value, digits)
    text = strong % text if cell.rank is not None and cell.rank <= bold else text
    return text + (joint % number(cell.error) if cell.error is not None else "")


def to_markdown(tables: Sequence[Table], bold: int = 1) -> str:
    """Pipe tables, ± behind each value, the first `bold` ranks in bold."""
    if not tables:
        return "No scores.\n"
    return "\n".join(_markdown(table, bold) for table in tables)


def _markdown(table: Table, bold: int) -> str:
    heads = ["Model", "Embedding", *(column.short for column in table.columns)]
    heads += [average_heading(table)] if table.has_average else []
    rule = ["---", "---", *["---:"] * (len(heads) - 2)]
    lines = [f"**{_md(heading(table))}**", "", _pipe(list(map(_md, heads))), _pipe(rule)]
    for row in table.rows:
        pooling = POOLINGS.get(row.pooling, row.pooling)
        lines.append(_pipe([_md(row.label), _md(pooling), *_texts(row, table, bold, "**%s**", "±%s")]))
    lines += ["", *(f"- {key}" for key in map(_md, [*absences(table), *table.notes]))]
    return "\n".join(lines).rstrip() + "\n"


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")


def absences(table: Table) -> list[str]:
    """One line per reason: which columns of which rows hold `–`, and why."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for column in table.columns:
        rows = [row for row in table.rows if row.cells[column.key].value is None]
        for reason in dict.fromkeys(row.cells[column.key].reason or "not run" for row in rows):
            names = [row.name for row in rows if (row.cells[column.key].reason or "not run") == reason]
            scope = "" if len(names) == len(table.rows) else f" ({', '.join(names)})"
            by_reason.setdefault((reason, scope), []).append(column.short)
    return [f"– in {', '.join(columns)}{scope}: {reason}" for (reason, scope), columns in by_reason.items()]


TEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {mark: "\\" + mark for mark in "&%$#_"}
TEX |= {"±": r"$\pm$", "–": "--", "−": "$-$", "µ": r"$\mu$", "<": r"\textless{}", ">": r"\textgreater{}"}


def escape_tex(text: str) -> str:
    """Text with LaTeX's special characters escaped, one pass, newlines as spaces."""
    return "".join(TEX.get(character, character) for character in text.replace("\n", " "))


def to_latex(tables: Sequence[Table], bold: int = 1) -> str:
    """`table*` environments for booktabs; ± as subscripts."""
    if not tables:
        return "% No scores.\n"
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex(table, bold) for table in tables)


def _latex(table: Table, bold: int) -> str:
    heads = ["Model", *(escape_tex(column.short) for column in table.columns)]
    heads += ["Avg."] if table.has_average else []
    lines = [f"% {escape_tex(heading(table))}", r"\begin{table*}", r"\centering"]
    lines += [rf"\caption{{{escape_tex(_caption(table))}}}", r"\resizebox{\textwidth}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
    for row in table.rows:
        cells = _texts(row, table, bold, r"\textbf{%s}", r"$_{\pm %s}$")
        lines.append(" & ".join([escape_tex(row.name), *(_tex_number(cell) for cell in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""])


def _tex_number(cell: str) -> str:
    return cell.replace("−", "$-$").replace(ABSENT, "--")


def _caption(table: Table) -> str:
    average = average_heading(table) if table.has_average else ""
    note = f" {average.rstrip('.')}." if average not in ("", "Avg.") else ""
    return f"{heading(table)}.{note}"


FORMS: dict[str, Callable[[Sequence[Table], int], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}

TABLE_FILES = tuple(f"{name}.{form}" for name in ("table2", "tablea1", "further") for form in ("csv", "md", "tex"))


def write_tables(scores: Sequence[Score], output_dir: str | Path, reasons: Mapping[str, str] | None = None) -> None:
    """Write every name of TABLE_FILES below `output_dir`: Tables 2 and A1 and further tasks as CSV, Markdown, LaTeX."""
    full = build_tables(scores, reasons)
    tables = {"table2": ([t.only("cls_mean") for t in full], 1), "tablea1": (full, 3)}
    tables["further"] = (build_further(scores), 1)
    for name, (group, bold) in tables.items():
        for form, convert in FORMS.items():
            write_text(Path(output_dir) / f"{name}.{form}", convert(group, bold))
