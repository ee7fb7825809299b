# SPDX-License-Identifier: Apache-2.0
"""What the local engine costs: start, models, first feedback, cancelling, transport. Prints milliseconds.

python benchmarks/engine.py
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

import fmh_ros
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.engines.channel import Inbox, Outbox
from fmh_ros.engines.local import LocalEngine
from fmh_ros.engines.types import EngineState, JobRequest

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
ROUNDS = 5


def large_frame() -> Frame:
    """The example with its depth, enlarged to 1280 x 960 and cut to 1280 x 720."""
    frame = load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")
    assert frame.depth is not None
    image = np.asarray(cv2.resize(frame.image, (1280, 960)))[120:840]
    depth = np.asarray(cv2.resize(frame.depth, (1280, 960), interpolation=cv2.INTER_NEAREST))[120:840]
    camera = frame.camera.crop((0, 60, 640, 420), 1280, 720)
    return replace(frame, image=np.ascontiguousarray(image), depth=np.ascontiguousarray(depth), camera=camera)


def transport_ms(message: object) -> float:
    """Median time to send a message from one thread to another over a socket."""
    ours, theirs = socket.socketpair()
    inbox = Inbox(theirs).messages()
    times = []
    for _ in range(20):
        outbox = Outbox(ours)
        began = time.perf_counter()
        outbox.put(message)
        sender = threading.Thread(target=outbox.flush)
        sender.start()
        next(inbox)
        times.append(1e3 * (time.perf_counter() - began))
        sender.join()
    return statistics.median(times)


def first_feedback_and_cancel_ms(engine: LocalEngine, frame: Frame) -> tuple[float, float]:
    """Submit a job, wait for its first feedback, cancel it."""
    first, ended = threading.Event(), threading.Event()
    began = time.perf_counter()
    job = engine.submit(JobRequest(frame), lambda _: first.set(), lambda _: ended.set())
    first.wait()
    fed = time.perf_counter()
    engine.cancel(job)
    ended.wait()
    return 1e3 * (fed - began), 1e3 * (time.perf_counter() - fed)


def main() -> None:
    """Measure and print."""
    frame = large_frame()
    print(f"transport of a 720p frame with depth  {transport_ms(frame):8.1f}")
    engine = LocalEngine()
    began = time.perf_counter()
    engine.start()
    engine.configure("embedded").result()
    print(f"process and models                    {1e3 * (time.perf_counter() - began):8.1f}")
    rows = []
    for _ in range(ROUNDS):
        while engine.status().state is not EngineState.READY or not engine.status().profile:
            time.sleep(0.01)
        rows.append(first_feedback_and_cancel_ms(engine, frame))
    feedback, cancel = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"submission to first feedback          {feedback:8.1f}")
    print(f"cancelling                            {cancel:8.1f}")
    began = time.perf_counter()
    engine.stop()
    print(f"stop                                  {1e3 * (time.perf_counter() - began):8.1f}")


if __name__ == "__main__":
    main()
