# SPDX-License-Identifier: Apache-2.0
"""Reconstruct every photo of a folder: ``python benchmarks/photos.py FOLDER --out OUT``.

Prints a row per photo and the medians that a release is held to, and writes OUT/contact_sheet.png of all views. A file
prompts.txt beside the photos (name, then x0,y0,x1,y1) gives object boxes; ``--without-prompts`` ignores it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from fmh_ros.core.errors import FmhError
from fmh_ros.core.export.write import write_result
from fmh_ros.core.frame.frame import ObjectPrompt
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction

IMAGES = {".png", ".jpg", ".jpeg"}


def row(name: str, result: Reconstruction, seconds: float) -> dict[str, float]:
    """Print the photo's line and return its numbers."""
    quality, box = result.quality, result.observation.box
    side = max(box[2] - box[0], box[3] - box[1])
    numbers = {
        "score": quality.score,
        "hand IoU": quality.hand_silhouette_iou,
        "object IoU": quality.object_silhouette_iou,
        "keypoints % of box": 100 * quality.keypoint_error_px / side,
        "penetration cm3": quality.penetration_cm3,
        "contacts": float(len(result.contacts)),
        "seconds": seconds,
    }
    extents = "x".join(f"{100 * e:.0f}" for e in result.object.extents_m)
    print(
        f"{name:34s} {result.hand.side:5s} {extents:>9s} cm  " + "  ".join(f"{k} {v:.2f}" for k, v in numbers.items())
    )
    for warning in result.warnings:
        print(f"    {warning}")
    return numbers


def contact_sheet(out: Path, names: list[str]) -> None:
    """Put every views.png into one picture, two a row."""
    width, pictures = 900, []
    for name in names:
        picture = cv2.imread(str(out / name / "views.png"))
        height = round(picture.shape[0] * width / picture.shape[1])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        cv2.putText(picture, name, (6, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
        pictures.append(picture)
    tallest = max(p.shape[0] for p in pictures)
    pictures = [
        cv2.copyMakeBorder(p, 0, tallest - p.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(255,) * 3) for p in pictures
    ]
    if len(pictures) % 2:
        pictures.append(np.full_like(pictures[0], 255))
    rows = [np.concatenate(pictures[i : i + 2], 1) for i in range(0, len(pictures), 2)]
    cv2.imwrite(str(out / "contact_sheet.png"), np.concatenate(rows, 0))


def read_prompts(folder: Path) -> dict[str, ObjectPrompt]:
    """Object boxes by file name."""
    path = folder / "prompts.txt"
    prompts: dict[str, ObjectPrompt] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        name, box = line.split()
        x0, y0, x1, y1 = (float(v) for v in box.split(","))
        prompts[name] = ObjectPrompt(box=(x0, y0, x1, y1))
    return prompts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/photos"))
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--prompts", type=Path, help="folder with prompts.txt, when it is not the photos' own")
    parser.add_argument("--without-prompts", action="store_true")
    parser.add_argument("--no-guidance", action="store_true")
    arguments = parser.parse_args()
    prompts = {} if arguments.without_prompts else read_prompts(arguments.prompts or arguments.folder)
    reconstructor = Reconstructor()
    reconstructor.load()
    numbers: list[dict[str, float]] = []
    names: list[str] = []
    for path in sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in IMAGES):
        if arguments.only and not any(part in path.name for part in arguments.only):
            continue
        begin = time.perf_counter()
        try:
            prompt = prompts.get(path.name, ObjectPrompt())
            result = reconstructor.reconstruct(load_frame(path), prompt=prompt, guidance=not arguments.no_guidance)
        except FmhError as error:
            print(f"{path.name:34s} {type(error).__name__}: {error}", flush=True)
            continue
        numbers.append(row(path.name, result, time.perf_counter() - begin))
        write_result(result, arguments.out / path.stem)
        names.append(path.stem)
    if numbers:
        medians = {k: float(np.median([n[k] for n in numbers])) for k in numbers[0]}
        print(f"\nmedian of {len(numbers)}: " + "  ".join(f"{k} {v:.2f}" for k, v in medians.items()))
        touching = np.mean([n["contacts"] > 0 for n in numbers])
        print(f"with a contact: {touching:.0%}; threads {torch.get_num_threads()}")
        contact_sheet(arguments.out, names)


if __name__ == "__main__":
    main()
