# SPDX-License-Identifier: Apache-2.0
"""A run divided over processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from fmh_ros.benchmark.run import Plan, SceneSource, run_plan
from fmh_ros.core.errors import WorkerDiedError
from fmh_ros.core.reconstruction.profile import load_profile

#: How long a process that was told to end may take for it, seconds.
GRACE_S = 5.0


def part(shard: tuple[int, int], job: int, jobs: int) -> tuple[int, int]:
    """Return the shard of the ``job``-th (from 0) of ``jobs`` equal parts of a shard."""
    k, n = shard
    return k + n * job, n * jobs


def gpus(text: str) -> tuple[str, ...]:
    """Return the CUDA devices that processes of a profile are spread over.

    They are those that CUDA_VISIBLE_DEVICES names, else all of this machine; none for a profile that has no use for
    one, or that says which one it wants. Raises ProfileError.
    """
    profile = load_profile(text)
    wants = any(choice.backend.gpu for choice in profile.stages.values())
    if not wants or profile.device not in ("auto", "cuda"):
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip() not in ("", "-1"))
    import torch

    return tuple(str(index) for index in range(torch.cuda.device_count()))


def run_jobs(
    source: SceneSource, plan: Plan, jobs: int, report: Callable[[str], None], devices: tuple[str, ...] = ()
) -> None:
    """Run a plan in ``jobs`` processes, this one alone for 1, each with a part of the scenes and one thread.

    devices : GPUs, by the names of CUDA_VISIBLE_DEVICES; each process sees one of them, in turn.

    Raises WorkerDiedError when a process ended early; what is stored stays, and the same call goes on from there.
    Interrupts end all processes.
    """
    if jobs <= 1:
        run_plan(source, plan, report)
        return
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=_work,
            args=(
                source,
                replace(plan, shard=part(plan.shard, job, jobs)),
                os.getpid(),
                devices[job % len(devices)] if devices else None,
            ),
            daemon=True,
        )
        for job in range(jobs)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join(GRACE_S)
    died = [process.exitcode for process in processes if process.exitcode]
    if died:
        raise WorkerDiedError(
            f"{len(died)} of {jobs} processes ended early (exit codes {', '.join(map(str, died))})",
            expected="all of them to finish their part",
            change="Run the same command again: it goes on with what is missing. Use fewer --jobs if memory is short",
        )


def _work(source: SceneSource, plan: Plan, parent: int, device: str | None) -> None:
    """What a process does: its part, until that is done or the parent is gone."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # read when CUDA starts, which nothing has done yet
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    import torch

    torch.set_num_threads(1)
    run_plan(source, plan, _say, going_on=lambda: os.getppid() == parent)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End with clean-up: a sample under way leaves nothing behind."""
    raise SystemExit(1)
