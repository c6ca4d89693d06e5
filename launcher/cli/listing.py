"""Rows of a listing, as a table or by `--format`, in Docker's ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from launcher.cli import output
from launcher.cli.template import Template
from launcher.errors import printable

_BETWEEN, _NARROWEST = 3, 10
_ESCAPES = (("\\t", "\t"), ("\\n", "\n"))


def show(format_: str | None, default: str, headers: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print `rows`, dictionaries of fields whose headers are `headers`.

    `format_`: None or "table" for the template `default`, "table TEMPLATE" for one of the user's, "json" for a JSON
    object a line, else a template for each row.
    """
    text = format_ if format_ is not None else "table"
    if text == "json":
        for row in rows:
            fields = {key: value for key, value in row.items() if not callable(value)}
            click.echo(output.as_json(fields))
        return
    as_table = text == "table" or text.startswith("table ")
    body = text.removeprefix("table").strip() or default
    template = Template(unescaped(body))
    lines = [template.render({key: _shown(value) for key, value in row.items()}) for row in rows]
    if not as_table:
        for line in lines:
            click.echo(line)
        return
    # The header is the same template, where every field is called by its header and every function does nothing.
    first = template.render(
        dict(headers), dict.fromkeys(("json", "join", "upper", "lower", "title", "truncate", "pad", "split"), _same)
    )
    columns([first, *lines])


def show_or_table(
    format_: str | None, fields: Sequence[str], headers: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """As `show` where there is a format; without one these `fields` as `output.table`: in a pipe without a header."""
    if format_ is not None:
        show(format_, "\t".join(f"{{{{.{key}}}}}" for key in fields), headers, rows)
    else:
        output.table([headers[key] for key in fields], [[row[key] for key in fields] for row in rows])


def unescaped(text: str) -> str:
    """A template in which a shell left \\t and \\n as they were typed."""
    for sign, meant in _ESCAPES:
        text = text.replace(sign, meant)
    return text


def columns(lines: Sequence[str]) -> None:
    """Print lines whose cells are separated by tabs as columns."""
    cells = [[printable(cell) for cell in line.split("\t")] for line in lines]
    widths: dict[int, int] = {}
    for row in cells:
        for number, cell in enumerate(row):
            widths[number] = max(widths.get(number, _NARROWEST - _BETWEEN), len(cell))
    for row in cells:
        padded = [cell.ljust(widths[number] + _BETWEEN) for number, cell in enumerate(row[:-1])]
        click.echo("".join([*padded, row[-1]]).rstrip())


def _shown(value: Any) -> Any:
    """What a stranger wrote moves neither the terminal nor the columns; what the template says is the user's own."""
    if callable(value):
        return lambda *arguments: _shown(value(*arguments))
    return printable(value) if isinstance(value, str) else value


def _same(value: Any, *_: Any) -> Any:
    return value
