# SPDX-License-Identifier: Apache-2.0
"""``fmh view`` without a display: the server, the page it serves, the nodes of its scene, and saved pictures."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_result import CAMERA, synthetic_reconstruction

from fmh_ros.cli.main import main
from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.export.views import draw_views
from fmh_ros.core.export.write import write_result
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.viewing.content import load

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture(scope="module")
def folder(result: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(result, tmp_path_factory.mktemp("view") / "out")


@pytest.fixture(scope="module")
def bag(result: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
    pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")
    from bag_files import PreparedEngine, run, write_bag

    path = tmp_path_factory.mktemp("bag")
    source = write_bag(path / "in.mcap", result, 2)
    assert run(source, path / "out.mcap", PreparedEngine(result)).succeeded == 2
    return path / "out.mcap"


def test_folder_and_bag_show_the_same(result: Reconstruction, folder: Path, bag: Path) -> None:
    expected = result.object.T_camera_object.apply(result.object.vertices)
    for content in (load(folder), load(bag), load(bag, 0)):
        np.testing.assert_allclose(content.object.vertices, expected, atol=1e-6)
        np.testing.assert_array_equal(content.object.faces, result.object.faces)
        assert len(content.hand.vertices) == len(result.hand.vertices)
        positions = sorted(contact.position.tolist() for contact in result.contacts)
        np.testing.assert_allclose(sorted(content.contacts[:, 0].tolist()), positions, atol=2e-6)
        np.testing.assert_allclose(content.camera.K, CAMERA.K, atol=1e-6)
        height, width, _ = content.image.shape
        assert width / height == pytest.approx(CAMERA.width / CAMERA.height) and np.ptp(content.image) > 50
    np.testing.assert_array_equal(load(bag).image, result.frame.image)


@pytest.mark.parametrize("there", ["photo", "overlay", "nothing"])
def test_the_camera_shows_the_photo_else_the_overlay_else_grey(
    there: str, result: Reconstruction, bag: Path, tmp_path: Path
) -> None:
    """The bag also has an image of the same stamp from another camera, before all others."""
    from bag_files import IMAGE, array_to_image, encode, stamp_of, to_header

    from fmh_ros.bags.reading import BagReader
    from fmh_ros.bags.writing import BagWriter, known_topic

    drawn = np.full_like(result.frame.image, 200)
    added = [("/a_left_eye", "left_eye", np.zeros_like(drawn))]
    added += [("/a_node/overlay", "cam", drawn)] if there != "nothing" else []
    with BagReader(bag) as source, BagWriter(tmp_path / "b.mcap") as writer:
        for name, frame_id, pixels in added:
            writer.add_topic(known_topic(name, IMAGE))
            image = array_to_image(pixels, "rgb8", to_header(frame_id, stamp_of(1)))
            writer.write((name, IMAGE), 1, encode(image, IMAGE))
        for topic in source.topics():
            writer.add_topic(topic)
        for stored in source.messages():
            if there == "photo" or stored.topic.name != "/cam/image_raw":
                writer.write(stored.topic.key, stored.time_ns, stored.raw)
    content = load(tmp_path / "b.mcap")
    expected = {"photo": result.frame.image, "overlay": drawn, "nothing": np.full_like(drawn, 128)}[there]
    np.testing.assert_array_equal(content.image, expected)
    np.testing.assert_allclose(content.camera.K, CAMERA.K, atol=1e-6)
    if there != "photo":
        np.testing.assert_array_equal(load(tmp_path / "b.mcap", image_topic="/a_left_eye").image, 0)


def test_pictures_are_saved_without_a_display(
    result: Reconstruction, folder: Path, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = draw_views(result)
    for source in (folder, bag):
        assert main(["view", str(source), "--save", str(tmp_path / "p.png")]) == 0
        found = np.asarray(Image.open(tmp_path / "p.png"))
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 1.0  # float32 in messages moves an edge by a pixel
    assert "p.png" in capsys.readouterr().out
    assert main(["view", str(folder), "--save", str(tmp_path / "p.nothing")]) == 15


def test_the_scene_has_hand_object_contacts_and_camera(result: Reconstruction, folder: Path) -> None:
    pytest.importorskip("viser", reason="the extra 'view' is not installed")
    from fmh_ros.viewing.scene import serve

    server = serve(load(folder), "127.0.0.1", 18370)
    try:
        for name in ("/hand", "/object", "/camera", "/contacts/0", "/contacts/normals"):
            assert server.scene.get_handle_by_name(name) is not None, name
        mesh = server.scene.get_handle_by_name("/object")
        np.testing.assert_allclose(
            mesh.vertices, result.object.T_camera_object.apply(result.object.vertices), atol=1e-6
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}/", timeout=30) as page:
            assert page.status == 200 and b"<html" in page.read().lower()
    finally:
        server.stop()


def test_the_command_serves_a_page_until_it_is_interrupted(folder: Path) -> None:
    pytest.importorskip("viser", reason="the extra 'view' is not installed")
    command = [sys.executable, "-m", "fmh_ros", "view", str(folder), "--port", "18380"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found is not None, said
        with urllib.request.urlopen(found[0], timeout=30) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_shown_is_said(tmp_path: Path, bag: Path) -> None:
    with pytest.raises(FileMissingError):
        load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="2 reconstructions"):
        load(bag, 2)
    with pytest.raises(UsageError, match="0 reconstructions"):
        load(bag.parent / "in.mcap")
    (tmp_path / "reconstruction.json").write_text("{}")
    with pytest.raises(UsageError, match="no result folder"):
        load(tmp_path)
