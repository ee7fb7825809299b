# SPDX-License-Identifier: Apache-2.0
"""Reconstructing a bag: what rosbags writes is read back by mcap-ros2-support, another library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from synthetic_result import CAMERA, synthetic_reconstruction

pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")

from bag_files import (
    IMAGE,
    SECOND,
    START,
    PreparedEngine,
    read_elsewhere,
    run,
    stamp_ns,
    stamp_of,
    stored,
    write_bag,
)

from fmh_ros.bags.convert import encode
from fmh_ros.bags.plan import Selection
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.reconstruct import BagReport, JobSettings, reconstruct_bag
from fmh_ros.bags.writing import BagWriter, known_topic
from fmh_ros.cli.main import main
from fmh_ros.core.errors import NoHandError, OutputError, PromptError, SynchronisationError, UsageError
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.basics import from_pose, from_transform, rows, to_header
from fmh_ros.ros_compat import array_to_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


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


def test_a_cut_off_bag_is_reconstructed_up_to_the_cut(result: Reconstruction, source: Path, tmp_path: Path) -> None:
    part = tmp_path / "cut.mcap"
    part.write_bytes(source.read_bytes()[: int(0.5 * source.stat().st_size)])
    report = run(part, tmp_path / "out.mcap", PreparedEngine(result))
    assert report.cut and 1 <= report.succeeded < 5
    assert len([1 for topic, _, _ in read_elsewhere(tmp_path / "out.mcap") if topic == "/tf"]) == report.succeeded


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
