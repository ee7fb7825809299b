# SPDX-License-Identifier: Apache-2.0
"""A table of results, as Markdown for people and CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmh_ros.benchmark.statistics import Estimate

Value = Estimate | float | int | str | None


@dataclass(frozen=True)
class Column:
    """A column. digits : after the point; best : "low" or "high" when the best estimate of a table is to be bold."""

    title: str
    digits: int = 2
    best: str = ""


@dataclass(frozen=True)
class Table:
    """name : of its file; title and note : above and below it; one list of values per row, as long as ``columns``."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table with its title and note; an estimate is shown as ``value [low, high]``."""
        best = [self._best(index) for index in range(len(self.columns))]
        lines = ["| " + " | ".join(c.title for c in self.columns) + " |", "|" + "---|" * len(self.columns)]
        for row in self.rows:
            cells = []
            for index, value in enumerate(row):
                text = _text(value, self.columns[index].digits)
                cells.append(f"**{text}**" if best[index] is not None and _number(value) == best[index] else text)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.note] if self.note else [])]) + "\n"

    def csv(self) -> str:
        """Return all digits; an estimate takes four columns: its value, both ends of its interval, its count."""
        wide = [any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.columns))]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        titles: list[str] = []
        for column, is_wide in zip(self.columns, wide, strict=True):
            titles += [column.title, *(f"{column.title} {end}" for end in ("low", "high", "scenes") if is_wide)]
        writer.writerow(titles)
        for row in self.rows:
            cells: list[str] = []
            for value, is_wide in zip(row, wide, strict=True):
                cells += _wide(value) if is_wide else [_exact(value)]
            writer.writerow(cells)
        return stream.getvalue()

    def _best(self, index: int) -> float | None:
        wanted = self.columns[index].best
        numbers = [n for n in (_number(row[index]) for row in self.rows) if n is not None]
        if not wanted or len(numbers) < 2:
            return None
        return min(numbers) if wanted == "low" else max(numbers)


def document(title: str, opening: Sequence[str], tables: Sequence[Table], pictures: Mapping[str, Sequence[str]]) -> str:
    """Return one Markdown page; ``pictures`` are names of files by the name of the table they stand below."""
    parts = [f"# {title}", "", *opening, ""]
    for table in tables:
        parts += [table.markdown()]
        parts += [f"![{table.title}]({name})\n" for name in pictures.get(table.name, ())]
    return "\n".join(parts).rstrip() + "\n"


def _number(value: Value) -> float | None:
    number = value.value if isinstance(value, Estimate) else value
    return float(number) if isinstance(number, (int, float)) and math.isfinite(number) else None


def _text(value: Value, digits: int) -> str:
    if isinstance(value, Estimate):
        if not math.isfinite(value.value):
            return "–"
        text = f"{value.value:.{digits}f}"
        return text if math.isnan(value.low) else f"{text} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _exact(value: Value) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _wide(value: Value) -> list[str]:
    if isinstance(value, Estimate):
        return [_exact(value.value), _exact(value.low), _exact(value.high), str(value.count)]
    return [_exact(value), "", "", ""]
