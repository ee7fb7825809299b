# SPDX-License-Identifier: Apache-2.0
"""From a bag with images to the same bag with reconstructions, without ROS and without a running node."""

from __future__ import annotations

import logging
import queue
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmh_ros.bags.convert import decode, encode
from fmh_ros.bags.info import RESULT
from fmh_ros.bags.plan import Plan, PlannedJob, Selection, make_plan, needed, uses
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.types import Stored
from fmh_ros.bags.writing import BagWriter, known_topic, make_qos
from fmh_ros.core.errors import FmhError, SynchronisationError, UsageError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.prompts import Box, Point, make_prompt
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.protocol import Engine
from fmh_ros.engines.types import JobFeedback, JobOutcome, JobRequest

LOG = logging.getLogger(__name__)
MARKERS, TF = "visualization_msgs/msg/MarkerArray", "tf2_msgs/msg/TFMessage"
#: Topics are named as the node of this name would name them.
NODE = "/reconstruction_node"


@dataclass(frozen=True)
class JobSettings:
    """How each image is reconstructed; see ``JobRequest``. frame_prefix : of the names in TF.

    marker_faces : triangles of each mesh among the markers at most. box, points, mask, text : what is pointed at in
    every image, in its pixels, and its name; see ``make_prompt``.
    """

    side: Any = "auto"
    profile: str = "embedded"
    preset: str = "default"
    seed: int = 0
    samples: int = 1
    guidance: bool = True
    frame_prefix: str = ""
    marker_faces: int = 4000
    node: str = NODE
    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: NDArray[np.bool_] | None = None
    text: str = ""


@dataclass(frozen=True)
class ImageReport:
    """How one image went: ``id`` names the reconstruction, empty when ``error`` is there instead."""

    stamp_ns: int
    id: str = ""
    score: float = 0.0
    error: FmhError | None = None


@dataclass
class BagReport:
    """How a bag went.

    copied : messages of the source; left_out : topics that could not be copied, with the reason; cut : why the end of
    the source is missing; not_found : wanted stamps that no image has; interrupted : the rest was not done.
    """

    planned: int = 0
    copied: int = 0
    images: list[ImageReport] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    not_found: tuple[int, ...] = ()
    cut: str = ""
    interrupted: bool = False

    @property
    def succeeded(self) -> int:
        """How many images were reconstructed."""
        return sum(image.error is None for image in self.images)


def reconstruct_bag(
    source: str | Path,
    out: str | Path,
    engine: Engine,
    selection: Selection,
    settings: JobSettings | None = None,
    on_image: Callable[[ImageReport, BagReport], None] = lambda _image, _report: None,
    on_feedback: Callable[[JobFeedback], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> BagReport:
    """Copy a bag message by message as it is, and add reconstructions, markers and TF of the selected images.

    What is added has the image's stamp and is recorded at the image's time. The engine must be started. An image that
    fails is reported and does not end the run. KeyboardInterrupt ends it early: what was written stays, and the report
    says so. Raises UsageError, FileMissingError or OutputError before or while writing.
    """
    with BagReader(source) as bag:
        plan = make_plan(bag, selection)
        settings = settings or JobSettings()
        taken = [topic.name for topic in bag.topics() if topic.name.startswith(f"{settings.node}/")]
        if taken:
            raise UsageError(
                f"The bag has {taken[0]} already", expected="a bag without topics of this name",
                change="Give the new topics another node's name",
            )  # fmt: skip
        if on_plan is not None:
            on_plan(plan)
        report = BagReport(planned=len(plan.jobs), not_found=plan.not_found)
        with BagWriter(out) as writer:
            run = _Run(plan, writer, engine, settings, report, on_image, on_feedback)
            try:
                run.all(bag)
            except KeyboardInterrupt:
                report.interrupted = True
        report.cut = bag.cut
    return report


class _Run:
    """One bag on its way."""

    def __init__(
        self,
        plan: Plan,
        writer: BagWriter,
        engine: Engine,
        settings: JobSettings,
        report: BagReport,
        on_image: Callable[[ImageReport, BagReport], None],
        on_feedback: Callable[[JobFeedback], None] | None,
    ) -> None:
        self._plan, self._writer, self._engine = plan, writer, engine
        self._settings, self._report = settings, report
        self._on_image, self._on_feedback = on_image, on_feedback
        self._uses = uses(plan)
        self._kept: dict[tuple[str, int], Stored] = {}
        self._waiting = list(plan.jobs)

    def all(self, bag: BagReader) -> None:
        """Copy, and do each job as soon as its last message has come by."""
        for topic in bag.topics():
            try:
                self._writer.add_topic(topic)
            except UsageError as error:
                self._report.left_out[topic.name] = str(error)
        self._declare()
        places: dict[str, int] = {}
        for stored in bag.messages():
            if self._writer.has(stored.topic.key):
                self._writer.write(stored.topic.key, stored.time_ns, stored.raw)
                self._report.copied += 1
            name = stored.topic.name
            key = (name, places.get(name, 0))
            places[name] = key[1] + 1
            if key in self._uses:
                self._kept[key] = stored
                self._do_ready()
        for job in self._waiting:  # the bag ended earlier than when it was planned: it is still being written
            self._tell(ImageReport(job.stamp_ns, error=_no_partner(job, "the rest of its messages")))

    def _declare(self) -> None:
        latched = [make_qos(reliable=True, latched=True, depth=1)]
        for name, kind in ((self._topic("reconstruction"), RESULT), (self._topic("markers"), MARKERS)):
            self._writer.add_topic(known_topic(name, kind, latched))
        self._writer.add_topic(known_topic("/tf", TF, [make_qos(reliable=True, latched=False, depth=100)]))

    def _topic(self, name: str) -> str:
        return f"{self._settings.node}/{name}"

    def _do_ready(self) -> None:
        while self._waiting and all(key in self._kept for key in needed(self._plan, self._waiting[0])):
            job = self._waiting.pop(0)
            try:
                self._tell(self._do(job))
            except FmhError as error:
                self._tell(ImageReport(job.stamp_ns, error=error))
            for key in needed(self._plan, job):
                self._uses[key] -= 1
                if not self._uses[key]:
                    del self._uses[key], self._kept[key]

    def _tell(self, image: ImageReport) -> None:
        self._report.images.append(image)
        self._on_image(image, self._report)

    def _do(self, job: PlannedJob) -> ImageReport:
        frame = self._frame(job)
        result = self._reconstruct(frame)
        name = uuid.uuid4().hex[:16]
        self._write(result, name, self._kept[(self._plan.image.name, job.image)].time_ns)
        return ImageReport(job.stamp_ns, name, result.quality.score)

    def _frame(self, job: PlannedJob) -> Frame:
        plan = self._plan
        image = self._message(plan.image.name, job.image)
        if plan.depth is not None and job.depth is None:
            raise _no_partner(job, f"a depth image on {plan.depth.name}")
        # Imported only now, when message classes are there, ROS's or those that stand in for them.
        from fmh_ros.messages.inputs import MessageSet, Names, build_frame

        camera_info = None if plan.camera_info is None else self._message(plan.camera_info.name, job.camera_info)
        depth = None if plan.depth is None else self._message(plan.depth.name, job.depth)
        names = Names(
            plan.image.name,
            "" if plan.camera_info is None else plan.camera_info.name,
            "" if plan.depth is None else plan.depth.name,
        )
        return build_frame(MessageSet(job.stamp_ns, image, camera_info, depth), names)

    def _message(self, topic: str, number: int | None) -> Any:
        if number is None:
            return None
        stored = self._kept[(topic, number)]
        return decode(stored.raw, stored.topic.msgtype)

    def _reconstruct(self, frame: Frame) -> Reconstruction:
        settings = self._settings
        request = JobRequest(
            frame=frame,
            prompt=make_prompt(frame, settings.box, settings.points, settings.mask, settings.text),
            side=settings.side,
            profile=settings.profile,
            preset=settings.preset,
            seed=settings.seed,
            samples=settings.samples,
            guidance=settings.guidance,
        )
        outcomes: queue.SimpleQueue[JobOutcome] = queue.SimpleQueue()
        number = self._engine.submit(request, self._on_feedback, outcomes.put)
        try:
            outcome = outcomes.get()
        except BaseException:
            self._engine.cancel(number)
            raise
        if outcome.error is not None:
            raise outcome.error
        assert outcome.reconstruction is not None
        return outcome.reconstruction

    def _write(self, result: Reconstruction, name: str, time_ns: int) -> None:
        from fmh_ros.bags.classes import message_class
        from fmh_ros.messages.frames import named_poses, to_transforms
        from fmh_ros.messages.markers import to_markers
        from fmh_ros.messages.result import Made, result_header, to_hand_object

        settings = self._settings
        # A frame's own warnings are part of the result; the job adds none.
        made = Made(name, settings.samples, settings.guidance)
        poses = named_poses(result, settings.frame_prefix)
        transforms = message_class(TF)(transforms=to_transforms(poses, result_header(result)))
        for topic, kind, message in (
            (self._topic("reconstruction"), RESULT, to_hand_object(result, made)),
            (self._topic("markers"), MARKERS, to_markers(result, settings.marker_faces)),
            ("/tf", TF, transforms),
        ):
            self._writer.write((topic, kind), time_ns, encode(message, kind))


def _no_partner(job: PlannedJob, what: str) -> FmhError:
    return SynchronisationError(
        f"The image at {job.stamp_ns / 1e9:.6f} s has no partner: {what}",
        expected="one with a stamp within the slop",
        change="Allow more with --slop, choose another topic, or leave depth out with --no-depth",
    )


def with_node(settings: JobSettings, node: str) -> JobSettings:
    """Return settings whose topics are below this node's name. Raises UsageError for what is no name."""
    if not node.startswith("/") or node.endswith("/") or any(c.isspace() for c in node):
        raise UsageError(f"{node!r} is no full name of a node", expected=f"something like {NODE}")
    return replace(settings, node=node)
