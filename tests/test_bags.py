# SPDX-License-Identifier: Apache-2.0
"""Bags: what rosbags writes is read back by mcap-ros2-support, another library."""
# ruff: noqa: E402 - what imports messages comes after what supplies them where there is no ROS

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from rvl_encoder import encode_rvl
from synthetic_result import CAMERA, synthetic_reconstruction

pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")

from fmh_ros.bags.classes import message_class, provide_message_classes
from fmh_ros.bags.convert import encode
from fmh_ros.bags.definitions import message_folder, typestore
from fmh_ros.bags.info import camera_info_beside, depth_beside
from fmh_ros.bags.plan import Plan, Selection
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.reconstruct import BagReport, JobSettings, reconstruct_bag
from fmh_ros.bags.types import Stored, Topic
from fmh_ros.bags.writing import BagWriter, known_topic
from fmh_ros.cli.bags import _say_plan
from fmh_ros.cli.main import main
from fmh_ros.core.errors import FmhError, NoHandError, OutputError, PromptError, SynchronisationError, UsageError
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.types import JobOutcome, JobRequest

provide_message_classes()

from fmh_ros.messages.basics import from_pose, from_transform, rows, to_header
from fmh_ros.messages.parse import from_hand_object
from fmh_ros.messages.result import Made, to_hand_object
from fmh_ros.ros_compat import array_to_image

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, RESULT, MARKERS = (
    "sensor_msgs/msg/CameraInfo",
    "follow_my_hold/msg/HandObject",
    "visualization_msgs/msg/MarkerArray",
)
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
ROOT = Path(__file__).parents[1]


class PreparedEngine:
    """Not an engine: answers each job with a result made beforehand, on the job's own frame, or with what is scripted.

    What it was asked is kept in ``requests``.
    """

    def __init__(self, result: Reconstruction, script: dict[int, BaseException] | None = None) -> None:
        self.result, self.script = result, script or {}
        self.requests: list[JobRequest] = []

    def submit(self, request: JobRequest, _feedback: object, ended: Callable[[JobOutcome], None]) -> int:
        number = len(self.requests)
        self.requests.append(request)
        scripted = self.script.get(number)
        if isinstance(scripted, FmhError):
            ended(JobOutcome(number, None, scripted, 0.0))
        elif scripted is not None:
            raise scripted
        else:
            ended(JobOutcome(number, replace(self.result, frame=request.frame), None, 0.0))
        return number

    def cancel(self, _number: int) -> bool:
        return False


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


def stamp_of(number: int) -> int:
    return START + number * SECOND // 10 + 7


def camera_info(number: int) -> Any:
    return message_class(INFO)(
        header=to_header("cam", stamp_of(number)),
        width=CAMERA.width,
        height=CAMERA.height,
        k=np.asarray(CAMERA.K, np.float64).ravel(),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
    )


def write_bag(
    path: Path, result: Reconstruction, count: int = 5, *, compressed: bool = False, depth: bool = True
) -> Path:
    """Images and depth at 10 Hz, one calibration, and a topic of another kind."""
    kind, name = (COMPRESSED, "/cam/image_raw/compressed") if compressed else (IMAGE, "/cam/image_raw")
    with BagWriter(path) as writer:
        topics = [
            known_topic(name, kind),
            known_topic("/cam/camera_info", INFO),
            known_topic("/chatter", "std_msgs/msg/String"),
        ]
        topics += [known_topic("/cam/depth", IMAGE)] if depth else []
        for topic in topics:
            writer.add_topic(topic)
        for number in range(count):
            time_ns, header = START + number * SECOND // 10, to_header("cam", stamp_of(number))
            if compressed:
                ok, data = cv2.imencode(".png", result.frame.image[..., ::-1])
                assert ok
                image = message_class(COMPRESSED)(
                    header=header, format="rgb8; png compressed bgr8", data=data.tobytes()
                )
            else:
                image = array_to_image(result.frame.image, "rgb8", header)
            writer.write((name, kind), time_ns, encode(image, kind))
            writer.write(("/cam/camera_info", INFO), time_ns + 5, encode(camera_info(number), INFO))
            if depth:
                metres = np.nan_to_num(result.frame.depth, nan=0.0, posinf=0.0)
                pixels = array_to_image(np.asarray(metres * 1000, np.uint16), "16UC1", header)
                writer.write(("/cam/depth", IMAGE), time_ns + 9, encode(pixels, IMAGE))
            text = message_class("std_msgs/msg/String")(data=f"number {number}")
            writer.write(("/chatter", "std_msgs/msg/String"), time_ns + 11, encode(text, "std_msgs/msg/String"))
    return path


def read_elsewhere(path: Path) -> list[tuple[str, int, Any]]:
    """Every message as mcap-ros2-support reads it: topic, time of recording, decoded message."""
    from mcap_ros2.reader import read_ros2_messages

    return [(item.channel.topic, item.log_time_ns, item.ros_msg) for item in read_ros2_messages(str(path))]


def stamp_ns(header: Any) -> int:
    return int(header.stamp.sec) * SECOND + int(header.stamp.nanosec)


def stored(path: Path) -> list[Stored]:
    with BagReader(path) as bag:
        return list(bag.messages())


def run(
    source: Path,
    out: Path,
    engine: PreparedEngine,
    *,
    settings: JobSettings | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    **chosen: Any,
) -> BagReport:
    selection = Selection("/cam/image_raw", **chosen)
    return reconstruct_bag(source, out, engine, selection, settings, on_plan=on_plan)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source(result: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "in.mcap", result)


@pytest.fixture(scope="module")
def done(
    result: Reconstruction, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, BagReport, PreparedEngine]:
    out, engine = tmp_path_factory.mktemp("out") / "out.mcap", PreparedEngine(result)
    report = run(source, out, engine, every=2, depth="/cam/depth", settings=JobSettings(frame_prefix="cam1/"))
    return out, report, engine


def test_every_message_of_the_source_is_copied_byte_by_byte(source: Path, done: tuple[Path, BagReport, Any]) -> None:
    out, report, _ = done
    before = [(m.topic.name, m.topic.msgtype, m.time_ns, m.raw) for m in stored(source)]
    names = {name for name, *_ in before}
    after = [(m.topic.name, m.topic.msgtype, m.time_ns, m.raw) for m in stored(out) if m.topic.name in names]
    assert after == before and report.copied == len(before) == 20
    with BagReader(source) as old, BagReader(out) as new:
        digests = {topic.name: topic.definition for topic in old.topics()}
        assert {t.name: t.definition for t in new.topics() if t.name in names} == digests


def test_another_library_reads_results_equal_to_the_core_s(
    result: Reconstruction, done: tuple[Path, BagReport, Any]
) -> None:
    out, report, _ = done
    found = read_elsewhere(out)
    messages = [(time_ns, m) for topic, time_ns, m in found if topic == "/reconstruction_node/reconstruction"]
    assert [stamp_ns(m.header) for _, m in messages] == [stamp_of(n) for n in (0, 2, 4)]
    assert [time_ns for time_ns, _ in messages] == [START + n * SECOND // 10 for n in (0, 2, 4)]
    assert [m.id for _, m in messages] == [image.id for image in report.images] and len(set(report.images)) == 3
    for _, message in messages:
        assert message.header.frame_id == "cam"
        np.testing.assert_allclose(rows(message.object.vertices, 3), result.object.vertices, atol=1e-7)
        np.testing.assert_array_equal(np.array(message.object.faces).reshape(-1, 3), result.object.faces)
        np.testing.assert_allclose(rows(message.hand.keypoints, 3), result.hand.keypoints, atol=1e-7)
        np.testing.assert_allclose(
            from_pose(message.object.pose).matrix(), result.object.T_camera_object.matrix(), atol=1e-9
        )
        assert len(message.contacts) == len(result.contacts) and message.provenance.seed == result.seed
        mesh = trimesh.Trimesh(
            rows(message.object.vertices, 3), np.array(message.object.faces).reshape(-1, 3), process=False
        )
        assert mesh.is_watertight and mesh.volume == pytest.approx(message.object.volume, rel=1e-4)


def test_frames_and_markers_carry_the_image_s_stamp_and_the_message_s_pose(done: tuple[Path, BagReport, Any]) -> None:
    found = read_elsewhere(done[0])
    message = next(m for topic, _, m in found if topic == "/reconstruction_node/reconstruction")
    transforms = {t.child_frame_id: t for t in next(m for topic, _, m in found if topic == "/tf").transforms}
    assert {"cam1/hand_right", "cam1/object", "cam1/hand_right_index_tip"} <= set(transforms) and len(transforms) == 7
    for transform in transforms.values():
        assert transform.header.frame_id == "cam" and stamp_ns(transform.header) == stamp_of(0)
    for name, pose in (("object", message.object.pose), ("hand_right", message.hand.wrist_pose)):
        sent = from_transform(transforms[f"cam1/{name}"].transform).matrix()
        np.testing.assert_allclose(sent, from_pose(pose).matrix(), atol=1e-12)
    markers = next(m for topic, _, m in found if topic == "/reconstruction_node/markers").markers
    assert {stamp_ns(marker.header) for marker in markers} == {stamp_of(0)}
    assert {"hand", "object", "skeleton", "contacts"} <= {marker.ns for marker in markers}


def test_jobs_get_the_image_with_its_calibration_and_its_depth(
    result: Reconstruction, done: tuple[Path, Any, PreparedEngine]
) -> None:
    requests = done[2].requests
    assert len(requests) == 3
    for number, request in zip((0, 2, 4), requests, strict=True):
        frame = request.frame
        assert frame.stamp_ns == stamp_of(number) and frame.frame_id == "cam"
        np.testing.assert_array_equal(frame.image, result.frame.image)
        np.testing.assert_allclose(frame.camera.K, CAMERA.K)
        assert frame.camera.source == "given" and frame.depth is not None
        seen = np.isfinite(result.frame.depth)
        np.testing.assert_allclose(frame.depth[seen], result.frame.depth[seen], atol=0.0011)


def test_offered_qos_says_that_results_are_latched(done: tuple[Path, Any, Any]) -> None:
    with BagReader(done[0]) as bag:
        qos = {topic.name: topic.qos for topic in bag.topics()}
    (offered,) = qos["/reconstruction_node/reconstruction"]
    assert offered.durability.name == "TRANSIENT_LOCAL" and offered.reliability.name == "RELIABLE"
    (offered,) = qos["/tf"]
    assert offered.durability.name == "VOLATILE"


@pytest.mark.parametrize("name", ["in.db3", "folder"])
def test_sqlite_and_folders_with_compressed_images_are_read(name: str, result: Reconstruction, tmp_path: Path) -> None:
    source = write_bag(tmp_path / name, result, 2, compressed=True, depth=False)
    assert source.is_dir() == (name == "folder")
    engine = PreparedEngine(result)
    report = reconstruct_bag(source, tmp_path / "out.mcap", engine, Selection("/cam/image_raw/compressed"))  # type: ignore[arg-type]
    assert report.succeeded == 2
    np.testing.assert_array_equal(engine.requests[0].frame.image, result.frame.image)
    assert engine.requests[0].frame.camera.source == "given"  # of the camera_info beside the raw image
    assert len([m for topic, _, m in read_elsewhere(tmp_path / "out.mcap") if topic == "/tf"]) == 2


@pytest.mark.parametrize("coding", ["png", "rvl"])
def test_jpeg_images_with_compressed_depth_are_read(coding: str, result: Reconstruction, tmp_path: Path) -> None:
    image, depth = "/cam/image_raw/compressed", "/cam/aligned_depth/compressedDepth"
    millimetres = np.nan_to_num(1000 * result.frame.depth, nan=0.0, posinf=0.0).astype(np.uint16)
    picture = encode_rvl(millimetres) if coding == "rvl" else cv2.imencode(".png", millimetres)[1].tobytes()
    jpeg = cv2.imencode(".jpg", result.frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    header, make = to_header("cam", START), message_class(COMPRESSED)
    with BagWriter(tmp_path / "in.mcap") as writer:
        for name, kind, data in (
            (image, "rgb8; jpeg compressed bgr8", jpeg),
            (depth, f"16UC1; compressedDepth {coding}", bytes(12) + picture),
        ):
            writer.add_topic(known_topic(name, COMPRESSED))
            message = make(header=header, format=kind, data=data)
            writer.write((name, COMPRESSED), START, encode(message, COMPRESSED))
    engine = PreparedEngine(result)
    selection = Selection(image, depth=depth)
    report = reconstruct_bag(tmp_path / "in.mcap", tmp_path / "out.mcap", engine, selection)  # type: ignore[arg-type]
    assert report.succeeded == 1, report.images
    frame = engine.requests[0].frame
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, np.where(millimetres > 0, millimetres / 1000, np.nan), atol=1e-6)
    assert np.abs(frame.image.astype(int) - result.frame.image).mean() < 4


def test_an_image_that_fails_is_reported_and_the_rest_is_done(
    result: Reconstruction, source: Path, tmp_path: Path
) -> None:
    engine = PreparedEngine(result, {1: NoHandError("No hand was found")})
    report = run(source, tmp_path / "out.mcap", engine)
    assert [type(image.error) for image in report.images] == [type(None), NoHandError, *[type(None)] * 3]
    results = [m for topic, _, m in read_elsewhere(tmp_path / "out.mcap") if topic.endswith("/reconstruction")]
    assert [stamp_ns(m.header) for m in results] == [stamp_of(n) for n in (0, 2, 3, 4)]


def test_an_interrupt_keeps_what_was_written(result: Reconstruction, source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out.mcap", PreparedEngine(result, {2: KeyboardInterrupt()}))
    assert report.interrupted and report.succeeded == 2
    found = read_elsewhere(tmp_path / "out.mcap")
    assert len([1 for topic, _, _ in found if topic.endswith("/reconstruction")]) == 2
    assert len([1 for topic, _, _ in found if topic == "/chatter"]) == 2
    assert not (tmp_path / "out.mcap.partial").exists()


def test_chosen_stamps_are_reconstructed_and_unknown_ones_named(
    result: Reconstruction, source: Path, tmp_path: Path
) -> None:
    wanted = (stamp_of(3), stamp_of(1), START - SECOND)
    report = run(source, tmp_path / "out.mcap", PreparedEngine(result), stamps=wanted)
    assert [image.stamp_ns for image in report.images] == [stamp_of(1), stamp_of(3)]
    assert report.not_found == (START - SECOND,)


def test_depth_that_is_too_far_away_fails_its_image(result: Reconstruction, tmp_path: Path) -> None:
    source = tmp_path / "in.mcap"
    with BagWriter(source) as writer:
        for name, late in (("/cam/image_raw", 0), ("/cam/depth", SECOND)):
            writer.add_topic(known_topic(name, IMAGE))
            image = array_to_image(result.frame.image, "rgb8", to_header("cam", START + late))
            writer.write((name, IMAGE), START + late, encode(image, IMAGE))
    report = run(source, tmp_path / "out.mcap", PreparedEngine(result), depth="/cam/depth")
    assert [type(image.error) for image in report.images] == [SynchronisationError]


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_bag_that_is_cut_off_is_read_up_to_the_cut(suffix: str, result: Reconstruction, tmp_path: Path) -> None:
    whole = write_bag(tmp_path / f"in{suffix}", result, 8)
    expected = [(m.topic.key, m.time_ns, m.raw) for m in stored(whole)]
    data, counts = whole.read_bytes(), []
    for share in (0.3, 0.55, 0.8, 0.97):
        part = tmp_path / f"cut{suffix}"
        part.write_bytes(data[: int(share * len(data))])
        with BagReader(part) as bag:
            found = [(m.topic.key, m.time_ns, m.raw) for m in bag.messages()]
            summary = bag.summary()
        assert found == expected[: len(found)]
        # Nothing before the cut is lost but the message that it goes through; SQLite keeps several together.
        lost = 20_000 if suffix == ".mcap" else 300_000
        assert sum(len(raw) for *_, raw in expected[: len(found) + 1]) > share * len(data) - lost
        assert summary.cut and summary.count == len(found)
        counts.append(len(found))
    assert counts == sorted(counts) and 0 < counts[0] < counts[-1] < len(expected) + 1


def test_a_cut_off_bag_is_reconstructed_up_to_the_cut(result: Reconstruction, source: Path, tmp_path: Path) -> None:
    part = tmp_path / "cut.mcap"
    part.write_bytes(source.read_bytes()[: int(0.5 * source.stat().st_size)])
    report = run(part, tmp_path / "out.mcap", PreparedEngine(result))
    assert report.cut and 1 <= report.succeeded < 5
    assert len([1 for topic, _, _ in read_elsewhere(tmp_path / "out.mcap") if topic == "/tf"]) == report.succeeded


def test_info_names_what_can_be_reconstructed_from(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(source)]) == 0
    said = capsys.readouterr().out
    assert "20 messages in 0.40 s, 4 topics" in said and "warning" not in said
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:]}
    assert lines["/cam/image_raw"] == [IMAGE, "5", "image"] and lines["/cam/depth"] == [IMAGE, "5", "depth"]
    assert lines["/cam/camera_info"] == [INFO, "5", "camera_info"]


def test_wrong_requests_are_refused_before_anything_is_written(
    result: Reconstruction, source: Path, tmp_path: Path
) -> None:
    engine, out = PreparedEngine(result), tmp_path / "out.mcap"
    for selection in (
        Selection("/nothing"),
        Selection("/chatter"),
        Selection("/cam/image_raw", depth="/cam/camera_info"),
    ):
        with pytest.raises(UsageError, match="cam/image_raw"):
            reconstruct_bag(source, out, engine, selection)  # type: ignore[arg-type]
    assert not out.exists() and not engine.requests
    out.write_text("mine")
    with pytest.raises(OutputError):
        run(source, out, engine)
    assert out.read_text() == "mine"


def test_results_are_not_mixed_with_those_of_another_run(
    result: Reconstruction, done: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="already"):
        run(done[0], tmp_path / "out.mcap", PreparedEngine(result))
    run(done[0], tmp_path / "out.mcap", PreparedEngine(result), settings=JobSettings(node="/second"))
    assert {"/second/reconstruction", "/reconstruction_node/reconstruction"} <= {
        t for t, *_ in read_elsewhere(tmp_path / "out.mcap")
    }


def test_the_command_says_what_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(tmp_path / "no.mcap")]) == 10
    (tmp_path / "text.mcap").write_text("not a bag at all")
    assert main(["bag", "info", str(tmp_path / "text.mcap")]) == 2
    (tmp_path / "text.db3").write_text("not a bag at all")
    assert main(["bag", "info", str(tmp_path / "text.db3")]) == 2
    command = ["bag", "reconstruct", str(tmp_path / "no.mcap"), "--image", "/a", "--out", str(tmp_path / "o.mcap")]
    assert main([*command, "--stamps", "x"]) == 2
    assert main([*command, "--samples", "0"]) == 2
    assert "Expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("/camera/camera/color/image_raw", "/camera/camera/aligned_depth_to_color/image_raw"),
        ("/camera/color/image_raw/compressed", "/camera/aligned_depth_to_color/image_raw/compressedDepth"),
        ("/camera/rgb/image_rect_color", "/camera/depth_registered/image_rect"),
        ("/zed/zed_node/rgb/image_rect_color", "/zed/zed_node/depth/depth_registered"),
        ("/rgb/image_raw", "/depth_to_rgb/image_raw"),
        ("/image", "/depth"),
        ("/cam/image_raw", "/cam/depth"),
        ("/camera/color/image_raw", None),
        ("/image", None),
    ],
)
def test_the_depth_of_an_image_is_known_by_its_name(image: str, depth: str | None) -> None:
    def topic(name: str, count: int = 3, kind: str = IMAGE) -> Topic:
        return Topic(name, COMPRESSED if name.endswith(("ssed", "Depth")) else kind, "", "", count=count)

    others = [
        topic(image),
        topic("/camera/depth/image_rect_raw"),  # in the depth camera's own pixels
        topic("/other/aligned_depth_to_color/image_raw"),
        topic("/other/depth"),
        topic("/camera/aligned_depth_to_color/camera_info", kind=INFO),
        topic("/camera/depth_registered/points", kind="sensor_msgs/msg/PointCloud2"),
        topic("/camera/depth_registered/nothing", count=0),
    ]
    assert depth_beside(image, others) is None
    if depth is not None:
        found = depth_beside(image, [*others, topic(f"{depth}/compressedDepth"), topic(depth)])
        assert found is not None and found.name == depth


def test_depth_is_found_used_said_and_can_be_left_out(
    result: Reconstruction, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = PreparedEngine(result)
    plans: list[Plan] = []
    run(source, tmp_path / "a.mcap", engine, every=5, on_plan=plans.append)
    run(source, tmp_path / "b.mcap", engine, every=5, depth="", camera_info="", on_plan=plans.append)
    assert [request.frame.depth is not None for request in engine.requests] == [True, False]
    assert [request.frame.camera.source for request in engine.requests] == ["given", "estimated"]
    for plan in plans:
        _say_plan(plan)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "image        /cam/image_raw (5 messages)",
        "camera_info  /cam/camera_info (5 messages), found by its name",
        "depth        /cam/depth (5 messages), found by its name; --no-depth leaves it out",
        "image        /cam/image_raw (5 messages)",
        "camera_info  none: the field of view is estimated, and distances with it",
        "depth        none",
    ]


def test_what_is_pointed_at_counts_for_every_image_and_nonsense_is_refused(
    result: Reconstruction, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros(result.frame.image.shape[:2], bool)
    mask[20:60, 30:90] = True
    settings = JobSettings(side="left", box=(30.0, 20.0, 90.0, 60.0), points=((40.0, 50.0), (80.0, 30.0)), mask=mask)
    engine = PreparedEngine(result)
    assert run(source, tmp_path / "a.mcap", engine, settings=settings, every=2).succeeded == 3
    for request in engine.requests:
        assert request.side == "left" and request.prompt.box == pytest.approx((30, 20, 90, 60))
        np.testing.assert_allclose(request.prompt.points, settings.points)
        assert request.prompt.mask is not None
        np.testing.assert_array_equal(request.prompt.mask, mask)
    outside = JobSettings(points=((5000.0, 1.0),))
    report = run(source, tmp_path / "b.mcap", PreparedEngine(result), settings=outside, every=5)
    assert [type(image.error) for image in report.images] == [PromptError]
    command = ["bag", "reconstruct", str(source), "--image", "/cam/image_raw", "--out", str(tmp_path / "o.mcap")]
    assert main([*command, "--object-box", "1,2,3"]) == PromptError.code
    assert main([*command, "--object-point", "a,b"]) == PromptError.code
    assert main([*command, "--object-mask", str(tmp_path / "none.png")]) == 10
    assert not (tmp_path / "o.mcap").exists()
    capsys.readouterr()


def test_the_calibration_beside_an_image_is_where_image_transport_puts_it() -> None:
    for topic in ("/cam/image_raw", "/cam/image_raw/compressed", "/cam/depth/compressedDepth"):
        assert camera_info_beside(topic) == "/cam/camera_info"


def test_hashes_of_the_definitions_are_those_that_ros_computes() -> None:
    shares = list((Path(sys.prefix) / "share" / "follow_my_hold" / "msg").glob("*.json"))
    if not shares:
        pytest.skip("the messages are not built into this environment")
    assert {path.stem for path in shares} == {path.stem for path in message_folder().glob("*.msg")}
    for path in shares:
        hashes = {item["type_name"]: item["hash_string"] for item in json.loads(path.read_text())["type_hashes"]}
        name = f"follow_my_hold/msg/{path.stem}"
        assert typestore().hash_rihs01(name) == hashes[name]


WITHOUT_ROS = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].endswith(("_msgs", "_interfaces")) or name.split(".")[0] in ("rclpy", "follow_my_hold"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[2])
import test_bags
from synthetic_result import synthetic_reconstruction
assert "rclpy" not in sys.modules and test_bags.provide_message_classes() is False  # supplied at import
from fmh_ros.bags.classes import Message
assert issubclass(test_bags.message_class(test_bags.RESULT), Message)
from pathlib import Path
folder, result = Path(sys.argv[1]), synthetic_reconstruction()
message = test_bags.to_hand_object(result, test_bags.Made("same"))
(folder / "raw").write_bytes(test_bags.encode(message, test_bags.RESULT))
source = test_bags.write_bag(folder / "in.mcap", result, 2)
assert test_bags.run(source, folder / "out.mcap", test_bags.PreparedEngine(result), depth="/cam/depth").succeeded == 2
"""


def test_bags_are_the_same_without_ros(result: Reconstruction, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ROS, str(tmp_path), str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "raw").read_bytes() == encode(to_hand_object(result, Made("same")), RESULT)
    write_bag(tmp_path / "with_ros.mcap", result, 2)
    assert [m.raw for m in stored(tmp_path / "in.mcap")] == [m.raw for m in stored(tmp_path / "with_ros.mcap")]
    message = next(m for topic, _, m in read_elsewhere(tmp_path / "out.mcap") if topic.endswith("/reconstruction"))
    np.testing.assert_allclose(rows(message.object.vertices, 3), result.object.vertices, atol=1e-7)


def test_bytes_are_those_of_ros_s_own_serialiser(result: Reconstruction) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    message = to_hand_object(result, Made("same"))
    ours = encode(message, RESULT)
    theirs = serialization.serialize_message(message)
    assert serialization.deserialize_message(ours, type(message)) == serialization.deserialize_message(
        theirs, type(message)
    )
    assert from_hand_object(serialization.deserialize_message(ours, type(message))).id == "same"


@pytest.mark.slow
def test_the_real_engine_gives_what_the_core_gives(tmp_path: Path) -> None:
    from fmh_ros.core.frame.load import load_frame
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor
    from fmh_ros.engines.local import LocalEngine

    example = ROOT / "fmh_ros" / "assets" / "example"
    frame = load_frame(example / "rgb.png")
    with BagWriter(tmp_path / "in.mcap") as writer:
        writer.add_topic(known_topic("/cam/image_raw", IMAGE))
        image = array_to_image(frame.image, "rgb8", to_header("cam", START))
        writer.write(("/cam/image_raw", IMAGE), START, encode(image, IMAGE))
    engine = LocalEngine()
    engine.start()
    try:
        settings = JobSettings(guidance=False, seed=3)
        report = reconstruct_bag(
            tmp_path / "in.mcap", tmp_path / "out.mcap", engine, Selection("/cam/image_raw"), settings
        )
    finally:
        engine.stop()
    assert report.succeeded == 1, report.images
    core = Reconstructor(profile="embedded")
    core.load()
    expected = core.reconstruct(frame, seed=3, guidance=False)
    message = next(m for topic, _, m in read_elsewhere(tmp_path / "out.mcap") if topic.endswith("/reconstruction"))
    vertices = expected.object.T_camera_object.apply(expected.object.vertices)
    found = from_pose(message.object.pose).apply(rows(message.object.vertices, 3))
    assert found.shape == vertices.shape
    np.testing.assert_allclose(found, vertices, atol=1e-5)
    np.testing.assert_allclose(rows(message.hand.keypoints, 3), expected.hand.keypoints, atol=1e-6)
    assert message.quality.score == pytest.approx(expected.quality.score, abs=1e-5)
