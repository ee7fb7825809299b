# SPDX-License-Identifier: Apache-2.0
"""The GPU checklist on a machine without one: what it says, what it leaves alone, and what it would write."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from synthetic_result import synthetic_reconstruction

import fmh_ros
from fmh_ros.core.errors import CancelledError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction import reconstructor as reconstructor_module
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction

ROOT = Path(__file__).parents[1]
EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"


@pytest.fixture(scope="module")
def checklist() -> ModuleType:
    path = ROOT / "benchmarks" / "gpu_checklist.py"
    spec = importlib.util.spec_from_file_location("gpu_checklist", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_without_card_and_weights_it_says_all_that_is_missing_and_writes_nothing(
    checklist: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("FMH_MODELS", str(tmp_path / "models"))
    page, said = tmp_path / "page.md", []
    page.write_text("as it was")
    assert checklist.main(["--profile", "open", "--page", str(page)], said.append) == 41
    text = "\n".join(said)
    assert "torch sees no graphics card" in text and text.endswith("Nothing was written.")
    assert all(f"weights of {model}" in text for model in load_profile("open").models)
    assert "fmh models pull open" in text and page.read_text() == "as it was"
    assert checklist.main(["--profile", "gigantic", "--page", str(page)], said.append) == 40


@lru_cache(maxsize=1)
def known() -> Reconstruction:
    return synthetic_reconstruction()


class Double(Reconstructor):
    """Loads for real; what it reconstructs is made up, a little differently each time when ``SHIFT_M`` says so."""

    SHIFT_M = 0.0
    runs = 0

    def reconstruct(self, frame: Frame, **options: Any) -> Reconstruction:
        self.load()
        for stage in ("detect", "flow", "finish"):
            options.get("progress", lambda said: None)(Progress(stage))
            if options.get("cancelled", bool)():
                raise CancelledError("cancelled")
        Double.runs += 1
        result = known()
        moved = replace(result.object, vertices=result.object.vertices + self.SHIFT_M * Double.runs)
        return replace(result, object=moved, timings_s={"detect": 0.5, "flow": 13.0, "total": 14.0})


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> type[Double]:
    monkeypatch.setattr(reconstructor_module, "Reconstructor", Double)
    monkeypatch.setattr("fmh_ros.core.flow.embedded.model.bfloat16_is_faster", lambda module, example: False)
    return Double


def test_it_says_what_was_loaded_what_it_took_and_what_held(checklist: ModuleType, double: type[Double]) -> None:
    profile = load_profile("embedded")
    frame = load_frame(EXAMPLE / "rgb.png")
    measured = checklist.measure(profile, frame, "cpu")
    assert {"detector/mediapipe", "generator/embedded", "segmenter/mask-network"} <= {row[0] for row in measured.loads}
    assert all(seconds >= 0 for _, seconds, _ in measured.loads)
    assert max(size for *_, size in measured.loads) > 20 * 2**20, "the generator's 29 MB in float32"
    assert set(measured.peaks) == {"load", "detect", "flow", "finish"}
    checks = {check.what.split(":")[0]: check for check in measured.checks}
    assert checks["a second job loads nothing"].ok and checks["one seed, one result"].ok
    assert checks["a cancelled job ends within 2 s"].ok
    text = checklist.to_markdown(profile, measured, ["a card", "torch"])
    assert "### embedded" in text and "| flow | 13.00 s | 0.0 GiB |" in text
    assert "- [x] a second job loads nothing: nothing" in text


def test_what_does_not_hold_is_not_ticked(checklist: ModuleType, double: type[Double]) -> None:
    double.SHIFT_M = 0.003
    one, two = (double("embedded").reconstruct(load_frame(EXAMPLE / "rgb.png")) for _ in range(2))
    double.SHIFT_M = 0.0
    weak = replace(one, quality=replace(one.quality, score=0.05), contacts=())
    checks = checklist.judge(load_profile("h100_fast"), weak, two)
    failed = {check.what.split(":")[0] for check in checks if not check.ok}
    assert {"the result is not weak", "hand and object touch", "one seed, one result"} <= failed
    assert {check.what: check.ok for check in checks}["a frame takes less than 15 s"], "14 s were said"
    late = replace(one, timings_s={"total": 16.0})
    assert not checklist.judge(load_profile("h100_fast"), late, one)[-1].ok


def test_a_profile_has_one_section_which_the_next_measurement_replaces(checklist: ModuleType) -> None:
    page = (ROOT / "docs" / "gpu-checklist.md").read_text()
    assert checklist.NOTHING in page or "<!-- measured: " in page
    clean = "# Page\n\n## Measured\n\n" + checklist.NOTHING
    once = checklist.put_into(clean, "h100", "### h100\n\nold \\1\n")
    both = checklist.put_into(once, "open", "### open\n")
    again = checklist.put_into(both, "h100", "### h100\n\nnew\n")
    assert checklist.NOTHING not in once and "old \\1" in once
    assert again.count("### h100") == 1 and "new" in again and "old" not in again and "### open" in again
    assert again.startswith("# Page\n\n## Measured\n")
