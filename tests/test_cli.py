# SPDX-License-Identifier: Apache-2.0
"""The fmh command: exit codes, messages, summary, interruption."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic_result import synthetic_reconstruction

from fmh_ros.cli import doctor, doctor_models
from fmh_ros.cli.main import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_UNEXPECTED, error_types, main
from fmh_ros.cli.progress_bar import ProgressBar
from fmh_ros.core import backends
from fmh_ros.core.backends import INSTALL
from fmh_ros.core.errors import NoHandError
from fmh_ros.core.export.write import RESULT_FILES
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction import reconstructor as reconstructor_module
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.models.store import sha256_of


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)).save(path)
    return path


class Double:
    """Stands in for the models: remembers what it was asked and gives a fixed answer."""

    answer: Any = None
    asked: dict[str, Any]

    def __init__(self, profile: str, preset: str) -> None:
        Double.asked = {"profile": profile, "preset": preset}

    def load(self) -> None:
        Double.asked["loaded"] = True

    def reconstruct(self, frame: Any, **options: Any) -> Reconstruction:
        Double.asked |= options
        options["progress"](Progress("flow", "joint", 3, 4, 0.5, 1.0, 0.25))
        if isinstance(Double.answer, BaseException):
            raise Double.answer
        return Double.answer


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, result: Reconstruction) -> type[Double]:
    Double.answer = result
    monkeypatch.setattr(reconstructor_module, "Reconstructor", Double)
    return Double


def test_help_comes_without_loading_any_heavy_library() -> None:
    code = (
        "import sys; from fmh_ros.cli.main import main; code = main(['reconstruct', '--help']);"
        "assert code == 0; heavy = {'torch', 'numpy', 'cv2', 'scipy', 'trimesh', 'warp', 'tqdm'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - started < 2.0


def test_every_exit_code_is_in_the_help_and_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.split("## Exit codes")[1].split("##")[0]
    for code in [kind.code for kind in error_types()] + [EXIT_UNEXPECTED, EXIT_INTERRUPTED, EXIT_TERMINATED]:
        assert f"\n  {code:>3}  " in text
        assert any(str(code) in row.split("|")[1].replace(",", " ").split() for row in table.splitlines() if "|" in row)


def test_a_run_writes_the_result_and_says_what_it_is(
    double: type[Double], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: Reconstruction
) -> None:
    out = tmp_path / "out"
    arguments = ["--object-box", "10,10,60,50", "--object-point", "20,30", "--hand", "left", "--seed", "5"]
    arguments += ["--samples", "2", "--no-guidance", "--preset", "paper"]
    assert main(["reconstruct", str(photo), "--out", str(out), *arguments]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULT_FILES)
    assert double.asked["preset"] == "paper" and double.asked["loaded"] and double.asked["hand"] == "left"
    assert (double.asked["seed"], double.asked["samples"], double.asked["guidance"]) == (5, 2, False)
    assert double.asked["prompt"].box == (10, 10, 60, 50) and double.asked["prompt"].points == ((20, 30),)
    printed = capsys.readouterr()
    assert f"{result.quality.score:.2f}" in printed.out and str(out / "views.png") in printed.out
    assert "warning: a warning" in printed.err
    assert json.loads((out / "reconstruction.json").read_text())["seed"] == result.seed


def test_quiet_prints_nothing(
    double: type[Double], photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", str(photo), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_weak_result_is_written_with_advice(
    double: type[Double], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result: Reconstruction
) -> None:
    double.answer = replace(result, quality=replace(result.quality, score=0.05))
    assert main(["reconstruct", str(photo), "--out", str(tmp_path / "out")]) == 0
    assert "weak" in capsys.readouterr().out


def test_the_progress_bar_shows_stage_phase_and_loss_and_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar() as bar:
        bar(Progress("flow", "joint", 3, 4, 0.5, 1.0, 0.25))
        bar(Progress("finish", fraction=0.4))
        assert bar.fraction == 0.5
    assert "flow: joint 3.4" in stream.getvalue() and "loss 0.25" in stream.getvalue()


def depth_file(tmp_path: Path, shape: tuple[int, int], value: float) -> str:
    np.save(tmp_path / "d.npy", np.full(shape, value, np.float32))
    return str(tmp_path / "d.npy")


def text_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "file.txt").write_text(text)
    return str(tmp_path / "file.txt")


BAD_INPUT = {
    "no such image": (10, lambda t: ["{none}"], "does not exist"),
    "no such depth": (10, lambda t: ["{photo}", "--depth", "{none}"], "depth image"),
    "no such camera": (10, lambda t: ["{photo}", "--camera", "{none}"], "calibration"),
    "no such mask": (10, lambda t: ["{photo}", "--object-mask", "{none}"], "mask"),
    "not an image": (11, lambda t: [text_file(t, "words")], "cannot be decoded"),
    "depth of another size": (12, lambda t: ["{photo}", "--depth", depth_file(t, (48, 64), 0.6)], "64x48"),
    "depth of another unit": (12, lambda t: ["{photo}", "--depth", depth_file(t, (96, 128), 600)], "--depth-scale"),
    "not a calibration": (13, lambda t: ["{photo}", "--camera", text_file(t, "words")], "camera_info"),
    "box outside": (14, lambda t: ["{photo}", "--object-box", "500,500,600,600"], "no area"),
    "point outside": (14, lambda t: ["{photo}", "--object-point", "500,5"], "outside"),
    "a name nobody reads": (17, lambda t: ["{photo}", "--object-name", "red mug"], "cannot read"),
    "no samples": (2, lambda t: ["{photo}", "--samples", "0"], "--samples"),
    "wrong profile": (40, lambda t: ["{photo}", "--profile", "gigantic"], "gigantic"),
    "wrong preset": (2, lambda t: ["{photo}", "--preset", "gigantic"], "gigantic"),
    "wrong hand": (2, lambda t: ["{photo}", "--hand", "third"], "invalid choice"),
    "unknown option": (2, lambda t: ["{photo}", "--colour"], "unrecognized"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_has_its_own_code_and_words_and_writes_nothing(
    case: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, build, words = BAD_INPUT[case]
    names = {"photo": str(photo), "none": str(tmp_path / "none.png")}
    arguments = [part.format(**names) for part in build(tmp_path)]
    assert main(["reconstruct", *arguments, "--out", str(tmp_path / "out"), "--quiet"]) == code
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_an_unwritable_output_is_found_before_the_work(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", str(photo), "--out", str(photo)]) == 15
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("kind", error_types())
def test_every_typed_error_becomes_its_exit_code(
    double: type[Double], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: type[Any]
) -> None:
    double.answer = kind("Something was seen", expected="something else", change="Change it")
    assert main(["reconstruct", str(photo), "--out", str(tmp_path / "out")]) == kind.code
    message = capsys.readouterr().err
    assert "Something was seen. Expected something else. Change it." in message and kind.__name__ in message
    assert not (tmp_path / "out").exists()


def test_a_fault_of_the_program_is_70_and_its_traceback_only_verbose(
    double: type[Double], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    double.answer = RuntimeError("a bug")
    arguments = ["reconstruct", str(photo), "--out", str(tmp_path / "out")]
    assert main(arguments) == EXIT_UNEXPECTED
    short = capsys.readouterr().err
    assert "RuntimeError: a bug" in short and "--verbose" in short and "Traceback" not in short
    assert main([*arguments, "--verbose"]) == EXIT_UNEXPECTED
    assert "Traceback" in capsys.readouterr().err
    double.answer = NoHandError("No hand")
    assert main([*arguments, "--verbose"]) == NoHandError.code
    assert "Traceback" in capsys.readouterr().err


SLOW = """
import sys, time
from fmh_ros.core.reconstruction import reconstructor
class Slow:
    def __init__(self, profile, preset): pass
    def load(self): pass
    def reconstruct(self, frame, **options):
        print("ready", flush=True)
        time.sleep(60)
reconstructor.Reconstructor = Slow
from fmh_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, EXIT_INTERRUPTED, "interrupted"), (signal.SIGTERM, EXIT_TERMINATED, "terminated")],
)
def test_a_signal_ends_a_run_at_once_and_leaves_nothing(
    photo: Path, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    command = [sys.executable, "-c", SLOW, "reconstruct", str(photo), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == code
        message = process.stderr.read()
    assert word in message and "Traceback" not in message
    assert [path.name for path in tmp_path.iterdir()] == [photo.name]


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "fmh_ros", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fmh ")


def test_doctor_ends_with_one_command_to_run_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "pipeline", lambda: [doctor.Finding("profile embedded", "loads")])
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for words in ("python", "torch", "warp-lang", "GFLOP/s", "graphics card", "sha256", "cores"):
        assert words in printed
    assert printed.strip().splitlines()[-1].startswith("Everything is there. Next: fmh reconstruct ")


def test_doctor_names_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "pipeline", list)
    monkeypatch.setitem(doctor.LIBRARIES, "no_such_module_anywhere", "no-such-module")
    assert main(["doctor"]) == 41
    printed = capsys.readouterr().out
    assert "!!  no-such-module" in printed and printed.strip().endswith("Next: pip install no-such-module")
    monkeypatch.delitem(doctor.LIBRARIES, "no_such_module_anywhere")
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  hand/none.npz\n")
    monkeypatch.setattr(doctor, "CHECKSUMS", tmp_path / "SHA256SUMS")
    assert main(["doctor"]) == 41
    assert "!!  hand/none.npz" in capsys.readouterr().out


def test_the_shipped_weights_are_the_ones_that_were_checked_in() -> None:
    """After new weights: make checksums."""
    actual = {str(path.relative_to(doctor.ASSETS)): sha256_of(path) for path in doctor.weight_files()}
    assert actual == doctor.read_checksums()
    assert sum(path.stat().st_size for path in doctor.weight_files()) < 64 * 2**20


def test_the_bundled_example_is_there_for_make_demo() -> None:
    example = doctor.ASSETS / "example"
    assert {"rgb.png", "depth.png", "camera.yaml"} <= {path.name for path in example.iterdir()}
    assert str(example / "camera.yaml") in doctor.example_command()


def test_doctor_says_of_a_profile_each_library_and_model_and_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "pipeline", list)
    monkeypatch.setenv("FMH_MODELS", str(tmp_path))
    monkeypatch.setattr(backends, "is_installed", lambda name: name != "moge")
    assert main(["doctor", "--profile", "open", "--stage", "namer=user"]) == 41
    lines = capsys.readouterr().out.splitlines()
    text = "open,namer=user"
    assert lines[-1].endswith(f"Next: {INSTALL['moge']} && fmh models pull {text}")
    assert any(line.startswith("!!  moge") and INSTALL["moge"] in line for line in lines)
    for model in ("sam2", "grounding-dino", "flux2-klein", "triposg"):
        assert any(line.startswith(f"!!  {model} ") and "missing" in line for line in lines)
    assert any(line.startswith("ok  transformers") for line in lines)
    assert not any("qwen" in line and line.startswith("!!") for line in lines)
    others = [line for line in lines if line.startswith("ok  profile ")]
    assert [line.split()[2] for line in others] == ["consumer", "h100", "h100_fast", "open"]
    assert "of 9 models" in next(line for line in others if "h100 " in line)
    assert main(["doctor", "--profile", "gigantic"]) == 40


def test_doctor_shows_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 NVL, 550.54.15, 95830 MiB, 95000 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert doctor_models.driver_cards() == ["NVIDIA H100 NVL, driver 550.54.15, 95000 MiB of 95830 MiB free"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2; exit 9\n")
    assert doctor_models.driver_cards() == ["the driver does not answer (CalledProcessError)"]


def test_doctor_says_which_extras_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"here": (("json",), "reading"), "away": (("json", "no_such_module_anywhere"), "flying")}
    monkeypatch.setattr(doctor, "EXTRAS", extras)
    here, away = doctor.extras()
    assert here.ok and here.text == "installed, for reading"
    assert away.ok and "fmh-ros[away]" in away.text


@pytest.mark.parametrize(("chosen", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: str | None, expected: str
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected
