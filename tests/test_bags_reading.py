# SPDX-License-Identifier: Apache-2.0
"""What is read of bags: kinds of files and images, those that are cut off, and which topics belong together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rvl_encoder import encode_rvl
from synthetic_result import synthetic_reconstruction

pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")

from bag_files import COMPRESSED, IMAGE, INFO, START, PreparedEngine, read_elsewhere, run, stored, write_bag

from fmh_ros.bags.classes import message_class
from fmh_ros.bags.convert import encode
from fmh_ros.bags.info import camera_info_beside, depth_beside
from fmh_ros.bags.plan import Plan, Selection
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.reconstruct import reconstruct_bag
from fmh_ros.bags.types import Topic
from fmh_ros.bags.writing import BagWriter, known_topic
from fmh_ros.cli.bags import _say_plan
from fmh_ros.cli.main import main
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.basics import to_header


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture(scope="module")
def source(result: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "in.mcap", result)


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


def test_info_names_what_can_be_reconstructed_from(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(source)]) == 0
    said = capsys.readouterr().out
    assert "20 messages in 0.40 s, 4 topics" in said and "warning" not in said
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:]}
    assert lines["/cam/image_raw"] == [IMAGE, "5", "image"] and lines["/cam/depth"] == [IMAGE, "5", "depth"]
    assert lines["/cam/camera_info"] == [INFO, "5", "camera_info"]


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


def test_the_calibration_beside_an_image_is_where_image_transport_puts_it() -> None:
    for topic in ("/cam/image_raw", "/cam/image_raw/compressed", "/cam/depth/compressedDepth"):
        assert camera_info_beside(topic) == "/cam/camera_info"
