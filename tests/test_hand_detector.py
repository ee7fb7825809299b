# SPDX-License-Identifier: Apache-2.0
"""Finding hands: the shipped networks, window geometry, and the real photos where they are at hand."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import PHOTOS, needs_photos

from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.cues.hand_models import HandNetworks, Pyramid, Window
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.fit import fit_hand, mirror_observation
from fmh_ros.core.hand.rig import load_generic_rig

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "fmh_ros" / "assets" / "mediapipe"

#: Photo: anatomical side and a point (x, y) in the palm of the hand that holds something, judged by eye.
HOLDING = {
    "easyhoi_airplane.jpg": ("left", (300, 540)),
    "easyhoi_coffee-1.png": ("right", (280, 560)),
    "fmh_arctic_143_cropped_hoi_1.png": ("right", (62, 108)),
    "fmh_arctic_325_cropped_hoi_1.png": ("right", (148, 150)),
    "fmh_wild_35_full_image_1.png": ("right", (270, 270)),
    "hort_test1.png": ("right", (215, 235)),
    "hort_test2.png": ("right", (190, 285)),
    "hort_test3.jpg": ("right", (690, 470)),
    "hort_test6.jpg": ("right", (150, 160)),
    "hort_test8.jpeg": ("right", (85, 38)),
    "ihoi_demo_00.jpg": ("right", (640, 500)),
    "ihoi_demo_06.jpg": ("right", (660, 435)),
    "ihoi_demo_12.jpg": ("right", (280, 470)),
    "ihoi_demo_13.jpg": ("right", (400, 170)),
    "wilor_test1.jpg": ("right", (340, 215)),
}


@pytest.fixture(scope="module")
def detector():
    return MediaPipeHandDetector()


def frame_of(name):
    image = cv2.cvtColor(cv2.imread(str(PHOTOS / name)), cv2.COLOR_BGR2RGB)
    return Frame(image, camera_from_field_of_view(image.shape[1], image.shape[0]))


def test_the_models_are_the_ones_the_notice_names():
    notice = dict(
        reversed(line.split()) for line in (ASSETS / "NOTICE").read_text().splitlines() if ".tflite" in line[64:]
    )
    assert sorted(notice) == ["hand_landmark_full.tflite", "palm_detection_full.tflite"]
    for name, digest in notice.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert "Apache License" in (ASSETS / "LICENSE").read_text()


def test_constructing_loads_nothing_and_a_missing_model_is_a_typed_error(tmp_path):
    detector = MediaPipeHandDetector(HandNetworks(tmp_path))
    with pytest.raises(ModelMissingError, match="palm_detection"):
        detector.detect(Frame(np.zeros((64, 64, 3), np.uint8), camera_from_field_of_view(64, 64)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [150.0, 500.0])
def test_window_pixels_and_sampling_agree(side, mirrored):
    # A smooth picture of its own coordinates: what the window samples must be what its geometry says.
    v, u = np.mgrid[0:900, 0:1200]
    image = np.stack([u / 1200 * 255, v / 900 * 255, np.zeros_like(u)], -1)
    window = Window((610.0, 440.0), side, 0.4, mirrored)
    patch = Pyramid(image.astype(np.float32)).sample(window, 96)[0] * 255
    y, x = np.mgrid[0:96, 0:96]
    pixels = window.to_pixels((np.stack([x, y], -1) + 0.5) / 96)
    assert np.abs(patch[..., 0] / 255 * 1200 - pixels[..., 0]).max() < 0.6
    assert np.abs(patch[..., 1] / 255 * 900 - pixels[..., 1]).max() < 0.6


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_picture_has_no_hands(detector, value):
    image = np.full((240, 320, 3), value, np.uint8)
    assert detector.detect(Frame(image, camera_from_field_of_view(320, 240))) == []


@needs_photos
@pytest.mark.parametrize("name", HOLDING)
def test_the_hand_that_holds_something_is_found_on_its_side_and_fitted(detector, name):
    side, palm = HOLDING[name]
    frame = frame_of(name)
    hands = detector.detect(frame)
    assert len(hands) <= 2
    hand = next(h for h in hands if inside(h.box, palm))
    assert hand.side == side
    assert 0.5 <= hand.side_score <= 1
    assert 0.25 < hand.score <= 1
    if side == "left":
        frame, hand = frame.mirrored(), mirror_observation(hand, frame.camera.width)
    mesh = fit_hand(hand, frame.camera, load_generic_rig()).mesh
    extent = max(hand.box[2] - hand.box[0], hand.box[3] - hand.box[1])
    assert mesh.reprojection_px < 0.07 * extent


@needs_photos
def test_scores_tell_sure_hands_from_doubtful_ones(detector):
    sure = [detector.detect(frame_of(name))[0].score for name in ("easyhoi_coffee-1.png", "hort_test6.jpg")]
    doubtful = detector.detect(frame_of("fmh_wild_35_full_image_1.png"))[0].score
    assert min(sure) > 0.9
    assert doubtful < 0.7


@needs_photos
def test_gloves_are_not_reported_as_sure_hands(detector):
    assert all(hand.score < 0.5 for hand in detector.detect(frame_of("hamer_test4.jpg")))


@needs_photos
def test_a_mirrored_photo_gives_the_mirrored_hand(detector):
    frame = frame_of("easyhoi_coffee-1.png")
    hand = detector.detect(frame)[0]
    other = mirror_observation(detector.detect(frame.mirrored())[0], frame.camera.width)
    assert other.side == hand.side
    assert np.linalg.norm(other.keypoints_2d - hand.keypoints_2d, axis=1).mean() < 0.01 * (hand.box[2] - hand.box[0])


@needs_photos
def test_a_hint_puts_the_hand_it_points_at_first(detector):
    frame = frame_of("ihoi_demo_06.jpg")
    for side, point in (("right", (660.0, 435.0)), ("left", (760.0, 335.0))):
        assert detector.detect(frame, near=point)[0].side == side


@needs_photos
@pytest.mark.parametrize(
    ("name", "point", "side"), [("hamer_test4.jpg", (750, 1100), "right"), ("hamer_test2.jpg", (300, 130), "right")]
)
def test_a_hint_finds_gloves_and_half_hidden_hands_that_are_missed_otherwise_with_a_low_score(
    detector, name, point, side
):
    frame = frame_of(name)
    assert not any(inside(hand.box, point) for hand in detector.detect(frame))
    hand = detector.detect(frame, near=point)[0]
    assert inside(hand.box, point)
    assert hand.side == side
    assert hand.score < 0.6


@needs_photos
def test_a_hint_at_the_background_invents_no_hand(detector):
    frame = frame_of("hort_test1.png")
    hands = detector.detect(frame, near=(60.0, 80.0))
    assert not any(inside(hand.box, (60.0, 80.0)) for hand in hands)


def inside(box, point):
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
