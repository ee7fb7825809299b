# SPDX-License-Identifier: Apache-2.0
"""What a profile does on a graphics card, with the published weights: fills docs/gpu-checklist.md.

python benchmarks/gpu_checklist.py --profile h100

Every stage is loaded and run on the bundled example, without its depth, so that the networks have work. Where anything
is missing, it is said with the command that gets it, and nothing is written.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

import fmh_ros
from fmh_ros.cli.arguments import add_profile
from fmh_ros.cli.doctor_models import driver_cards
from fmh_ros.core.errors import CancelledError, FmhError, ModelMissingError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.guidance.config import GuidanceConfig, preset
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.installed import missing_models, repairs
from fmh_ros.core.reconstruction.profile import Profile, load_profile, profile_text
from fmh_ros.core.reconstruction.types import WEAK_SCORE, Reconstruction

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu-checklist.md"
EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
GIB = 2**30
#: What a frame may take, seconds, where a profile promises it.
PROMISED_S = {"h100_fast": 15.0}
#: What two runs with one seed may differ by, metres: cards sum in no fixed order.
SAME_M = 0.002
#: A cancelled job must have ended after this, seconds.
CANCEL_S = 2.0
LEAST_IOU = 0.7


@dataclass(frozen=True)
class Check:
    """One line of the list: what must be seen, and what was."""

    what: str
    seen: str
    ok: bool


@dataclass
class Memory:
    """Peaks of a card's memory, bytes, by what ran; all zero without one."""

    device: str
    peaks: dict[str, int] = field(default_factory=dict)
    _running: str = ""

    def enter(self, name: str) -> None:
        """Close what ran, and begin something else."""
        peak = self.now(peak=True)
        if self._running:
            self.peaks[self._running] = max(self.peaks.get(self._running, 0), peak)
        self._running = name

    def now(self, *, peak: bool = False) -> int:
        """Bytes in use, or the most since this was last asked."""
        if self.device == "cpu":
            return 0
        import torch

        if not peak:
            return int(torch.cuda.memory_allocated(self.device))
        torch.cuda.synchronize(self.device)
        most = int(torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)
        return most


@dataclass(frozen=True)
class Measured:
    """loads : back end, seconds, bytes. stages, peaks : seconds and bytes of a warm run by stage."""

    loads: tuple[tuple[str, float, int], ...]
    stages: dict[str, float]
    peaks: dict[str, int]
    checks: tuple[Check, ...]


def missing(profile: Profile, *, needs_card: bool = True) -> list[str]:
    """Say what keeps a profile from being measured here, with the commands; empty when nothing does."""
    found = []
    if needs_card:
        try:
            import torch
        except ImportError:
            found.append("torch is not installed: pip install torch")
        else:
            if not torch.cuda.is_available():
                cards = driver_cards()
                found.append(
                    f"torch sees no graphics card (torch {torch.__version__}, driver: {'; '.join(cards) or 'none'})"
                )
    libraries, models = profile.missing_libraries, missing_models(profile)
    found += [f"library {name}" for name in libraries] + [f"weights of {name}" for name in models]
    command = repairs(profile, libraries, models)
    return [*found, f"Run: {command}"] if command else found


def measure(profile: Profile, frame: Frame, device: str, config: GuidanceConfig | None = None) -> Measured:
    """Load a profile and run it three times: to warm up, measured, and cancelled."""
    from fmh_ros.core.reconstruction.loading import ModelCache
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor

    loads: list[tuple[str, float, int]] = []
    cache = ModelCache(loaded=lambda name, seconds, size: loads.append((name, seconds, size)))
    config = config or preset(profile.preset)
    memory = Memory(device)
    reconstructor = Reconstructor(profile, cache=cache)
    reconstructor.load()
    first = reconstructor.reconstruct(frame, config=config)
    count = len(loads)
    memory.enter("load")
    second = reconstructor.reconstruct(frame, config=config, progress=lambda said: _follow(memory, said))
    memory.enter("")
    again = Reconstructor(profile, cache=cache)
    again.load()
    checks = [
        *judge(profile, second, first),
        Check("a second job loads nothing", _more(loads, count), len(loads) == count),
    ]
    checks.append(cancelled_in_time(again, frame, config))
    if device != "cpu":
        checks.append(fits(memory, device))
    return Measured(tuple(loads), second.timings_s, memory.peaks, tuple(checks))


def _follow(memory: Memory, said: Progress) -> None:
    if said.stage != memory._running:
        memory.enter(said.stage)


def _more(loads: list[tuple[str, float, int]], count: int) -> str:
    return ", ".join(name for name, _, _ in loads[count:]) or "nothing"


def judge(profile: Profile, result: Reconstruction, same: Reconstruction) -> list[Check]:
    """What a result must be; ``same`` has the same seed."""
    quality, total = result.quality, result.timings_s["total"]
    checks = [
        Check(
            f"the result is not weak: score at least {WEAK_SCORE}", f"{quality.score:.2f}", quality.score >= WEAK_SCORE
        ),
        Check(
            f"the object covers its mask: IoU at least {LEAST_IOU}",
            f"{quality.object_silhouette_iou:.2f}",
            quality.object_silhouette_iou >= LEAST_IOU,
        ),
        Check("hand and object touch", f"{len(result.contacts)} contacts", bool(result.contacts)),
        Check(
            "the object is one closed body", "closed" if result.object.watertight else "open", result.object.watertight
        ),
    ]
    for phase in result.phases:
        seen = f"{phase.loss_first:.3g} to {phase.loss_last:.3g}"
        checks.append(Check(f"the loss falls in the phase {phase.name}", seen, phase.loss_last < phase.loss_first))
    shift = np.abs(np.subtract(extent(result), extent(same))).max()
    checks.append(Check("one seed, one result: within 2 mm", f"{1000 * shift:.2f} mm", bool(shift <= SAME_M)))
    promised = PROMISED_S.get(profile.text)
    if promised is not None:
        checks.append(Check(f"a frame takes less than {promised:.0f} s", f"{total:.1f} s", total < promised))
    return checks


def extent(result: Reconstruction) -> np.ndarray:
    """Corners of the boxes round hand and object (2, 2, 3), metres, camera frame."""
    T = result.object.T_camera_object
    points = (result.hand.T_camera_hand.apply(result.hand.vertices), T.apply(result.object.vertices))
    return np.stack([np.stack([each.min(0), each.max(0)]) for each in points])


def cancelled_in_time(reconstructor: object, frame: Frame, config: GuidanceConfig) -> Check:
    """Cancel a job in its flow and see how long it goes on."""
    asked: list[float] = []

    def heard(said: Progress) -> None:
        if said.stage == "flow" and not asked:
            asked.append(time.perf_counter())

    try:
        reconstructor.reconstruct(frame, config=config, progress=heard, cancelled=lambda: bool(asked))  # type: ignore[attr-defined]
    except CancelledError:
        seconds = time.perf_counter() - asked[0]
        return Check(f"a cancelled job ends within {CANCEL_S:.0f} s", f"{seconds:.2f} s", seconds <= CANCEL_S)
    return Check(f"a cancelled job ends within {CANCEL_S:.0f} s", "it went on to its end", ok=False)


def fits(memory: Memory, device: str) -> Check:
    """Whether everything stayed well within the card's memory."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    peak = max(memory.peaks.values(), default=0)
    seen = f"{peak / GIB:.1f} of {total / GIB:.1f} GiB"
    return Check("no stage takes more than 95 % of the card", seen, peak < 0.95 * total)


def to_markdown(profile: Profile, measured: Measured, machine: Iterable[str]) -> str:
    """Return a profile's section of the page."""
    lines = [f"### {profile.text}", "", "; ".join(machine), "", "| Back end | loaded in | networks |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.1f} s | {size / GIB:.2f} GiB |" for name, seconds, size in measured.loads]
    lines += ["", "| Stage | time | most memory |", "|---|---|---|"]
    for stage, seconds in measured.stages.items():
        peak = measured.peaks.get(stage)
        lines.append(f"| {stage} | {seconds:.2f} s | {'' if peak is None else f'{peak / GIB:.1f} GiB'} |")
    lines += [""] + [f"- [{'x' if check.ok else ' '}] {check.what}: {check.seen}" for check in measured.checks]
    return "\n".join(lines) + "\n"


def put_into(page: str, name: str, section: str) -> str:
    """Return the page with a profile's section in place of its older one, or behind the others."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{section}{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return page.replace(NOTHING, "").rstrip("\n") + f"\n\n{block}\n"


#: Stands in the page while nobody has measured anything.
NOTHING = "No measurements have been taken yet.\n"


def machine() -> list[str]:
    """What was measured with: card, driver, torch, code, day."""
    import torch

    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    code = f"fmh_ros {fmh_ros.__version__}" + (f" at {git.stdout.strip()}" if git.returncode == 0 else "")
    return [*driver_cards(), f"torch {torch.__version__}", code, date.today().isoformat()]


def main(argv: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Measure, and write the page; the exit code of what is wrong otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_profile(parser)
    parser.set_defaults(profile="h100")
    parser.add_argument("--image", default=str(EXAMPLE / "rgb.png"), help="(default: the bundled example)")
    parser.add_argument("--camera", help="its camera_info YAML (default: the example's)")
    parser.add_argument("--page", type=Path, default=PAGE, help="(default: docs/gpu-checklist.md)")
    arguments = parser.parse_args(argv)
    try:
        profile = load_profile(profile_text(arguments.profile, arguments.stage))
        lacks = missing(profile)
        if lacks:
            say(f"The profile {profile.text} cannot be measured here. Missing:")
            for line in lacks:
                say(f"  {line}")
            say("Nothing was written.")
            return ModelMissingError.code
        camera = arguments.camera or (str(EXAMPLE / "camera.yaml") if Path(arguments.image).parent == EXAMPLE else None)
        measured = measure(profile, load_frame(arguments.image, None, camera), "cuda")
    except FmhError as error:
        say(f"{type(error).__name__}: {error}\nNothing was written.")
        return error.code
    section = to_markdown(profile, measured, machine())
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(put_into(page, profile.text, section), encoding="utf-8")
    say(section)
    return int(not all(check.ok for check in measured.checks))


if __name__ == "__main__":
    sys.exit(main())
