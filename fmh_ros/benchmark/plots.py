# SPDX-License-Identifier: Apache-2.0
"""The plots of the results page; needs matplotlib, of the extra "bench"."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fmh_ros.benchmark.sheets import Table
from fmh_ros.benchmark.statistics import Estimate, Results
from fmh_ros.benchmark.tables import CHAMFER, F10, label, occlusion_bins
from fmh_ros.benchmark.variants import BUDGETS
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.evaluation.calibration import BINS

#: Of the full method, and of what it is compared with.
COLOURS = ("#2f6db5", "#d98c3f", "#7a9e4b", "#8c6bb1")


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Sequence[Any]]:
    """Return a figure without a display and its axes. Raises ModelMissingError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModelMissingError(
            "matplotlib is not installed", expected="the extra 'bench'", change="pip install 'fmh-ros[bench]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, index + 1) for index in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def png(figure: Any) -> bytes:
    """Return a figure as a PNG that is the same for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def differences_plot(table: Table) -> bytes:
    """Paired differences of a table of variants to the full method, with their intervals."""
    index = next(i for i, column in enumerate(table.columns) if column.title == "CD difference")
    rows = [(str(row[0]), row[index]) for row in table.rows if isinstance(row[index], Estimate)]
    figure, (axis,) = new_figure(7.2, 0.9 + 0.36 * len(rows))
    for place, (_, found) in enumerate(reversed(rows)):
        assert isinstance(found, Estimate)
        if math.isfinite(found.low):
            axis.plot([found.low, found.high], [place, place], color=COLOURS[0], lw=2)
        axis.plot(found.value, place, "o", color=COLOURS[0])
    axis.axvline(0, color="black", lw=1)
    axis.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axis.set_xlabel("Chamfer distance more than the full method, cm$^2$")
    return png(figure)


def occlusion_plot(results: Results, cues: str) -> bytes | None:
    """Chamfer distance and F-score against the share of the object that is hidden."""
    done = results.where(lambda r: r.done)
    names = [name for name in ("default", "unguided") if done.select(name, cues).records]
    if not names:
        return None
    figure, axes = new_figure(9.0, 3.4, 2)
    for name, colour in zip(names, COLOURS, strict=False):
        chosen = done.select(name, cues)
        bins = list(occlusion_bins(chosen.records).items())
        for axis, metric in zip(axes, (CHAMFER, F10), strict=True):
            hidden = [float(r.attributes.get("occlusion", math.nan)) for r in chosen.records]
            axis.scatter(hidden, [r.value(metric) for r in chosen.records], s=9, alpha=0.45, color=colour)
            places = [chosen.where(lambda r, s=s: r.key.scene in s).records for _, s in bins]  # type: ignore[misc]
            at = [float(np.mean([float(r.attributes["occlusion"]) for r in records])) for records in places]
            means = [Results(records).mean(metric) for records in places]
            _band(axis, at, means, colour, label(name))
    axes[0].set_yscale("log")
    axes[0].set_ylabel("Chamfer distance, cm$^2$")
    axes[1].set_ylabel("F-score at 10 mm")
    for axis in axes:
        axis.set_xlabel("hidden share of the object's outline")
    axes[1].legend(fontsize=8)
    return png(figure)


def budget_plot(results: Results, cues: str) -> bytes | None:
    """Chamfer distance against the time that a reconstruction takes."""
    names = [n for n in ("unguided", "default", *BUDGETS) if results.select(n, cues).records]
    if len(names) < 3:
        return None
    figure, (axis,) = new_figure(6.4, 3.8)
    for name in names:
        chosen = results.select(name, cues)
        time, error = chosen.median("seconds"), chosen.mean(CHAMFER)
        colour = COLOURS[1 if name.startswith("samples") else 0]
        if math.isfinite(error.low):
            axis.plot([time.value] * 2, [error.low, error.high], color=colour, lw=1.5)
        axis.plot(time.value, error.value, "o", color=colour)
        axis.annotate(label(name), (time.value, error.value), xytext=(6, 3), textcoords="offset points", fontsize=8)
    axis.set_xlabel("median time, s")
    axis.set_ylabel("mean Chamfer distance, cm$^2$")
    return png(figure)


def calibration_plot(results: Results, cues: str) -> bytes | None:
    """Reliability: the error of samples of each score, and how it falls."""
    chosen = results.select("default", cues)
    if chosen.calibration(CHAMFER) is None:
        return None
    ordered = sorted((r for r in chosen.records if r.done), key=lambda r: r.value("score"))
    parts = [Results(tuple(ordered[i] for i in part)) for part in np.array_split(np.arange(len(ordered)), BINS)]
    parts = [part for part in parts if part.records]
    figure, axes = new_figure(9.0, 3.4, 2)
    for axis, metric, text in zip(axes, (CHAMFER, F10), ("Chamfer distance, cm$^2$", "F-score at 10 mm"), strict=True):
        axis.scatter(
            [r.value("score") for r in ordered], [r.value(metric) for r in ordered], s=9, alpha=0.5, color=COLOURS[0]
        )
        at = [float(np.mean([r.value("score") for r in part.records])) for part in parts]
        _band(axis, at, [part.mean(metric) for part in parts], COLOURS[1], f"mean of each of {BINS} equal parts")
        axis.set_xlabel("score")
        axis.set_ylabel(text)
    axes[0].set_yscale("log")
    axes[1].legend(fontsize=8)
    return png(figure)


def _band(axis: Any, at: Sequence[float], found: Sequence[Estimate], colour: str, name: str) -> None:
    axis.plot(at, [e.value for e in found], "-o", color=colour, label=name)
    axis.fill_between(at, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.15, lw=0)
