# SPDX-License-Identifier: Apache-2.0
"""HaMeR and WiLoR from their publishers' folders: by their real classes, small and random, where these are installed.

The user's own packages are needed for most of it (docs/models.md says how they are installed).
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mano_files import write_mano
from numpy.typing import NDArray

from fmh_ros.core.cues.foundation.hand_networks import read_weights
from fmh_ros.core.cues.foundation.hands import HandBox, ManoRegressor, YoloHandBoxes, hand_crop, make_hamer
from fmh_ros.core.cues.squares import Square
from fmh_ros.core.errors import ModelFileError, ModelMissingError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.mano import load_mano_rig
from fmh_ros.core.hand.mano_file import mano_keypoints
from fmh_ros.core.hand.rig import hand_axes
from fmh_ros.core.pretrained import IMAGENET, Placement, to_tensor

#: What model_config.yaml of both says of the network, as published but for the size of the transformer's layers.
WIDTH = 64
CONFIG: dict[str, Any] = {
    "MODEL": {
        "IMAGE_SIZE": 256, "IMAGE_MEAN": [0.485, 0.456, 0.406], "IMAGE_STD": [0.229, 0.224, 0.225],
        "BACKBONE": {"TYPE": "vit", "PRETRAINED_WEIGHTS": "training_data/vitpose_backbone.pth"},
        "MANO_HEAD": {"TYPE": "transformer_decoder", "IN_CHANNELS": 2048, "TRANSFORMER_DECODER": {
            "depth": 1, "heads": 2, "mlp_dim": 32, "dim_head": 16, "dropout": 0.0, "emb_dropout": 0.0, "norm": "layer",
            "context_dim": WIDTH}},
    },
    "MANO": {"DATA_DIR": "_DATA/data/", "MODEL_PATH": "_DATA/data/mano", "GENDER": "neutral", "NUM_HAND_JOINTS": 15,
             "MEAN_PARAMS": "_DATA/data/mano_mean_params.npz", "CREATE_BODY_POSE": False},
    "EXTRA": {"FOCAL_LENGTH": 5000},
    "LOSS_WEIGHTS": {"ADVERSARIAL": 0.0005},
}  # fmt: skip
CAMERA = CameraModel(640, 480, np.array([[610.0, 0, 250.0], [0, 610.0, 300.0], [0, 0, 1.0]]))
BOX = HandBox((300.0, 120.0, 420.0, 260.0), "right", 0.8)
CLASSES = {"hamer": "HAMER", "wilor": "WiLoR"}


class Told:
    def __init__(self, *boxes: HandBox) -> None:
        self.boxes = list(boxes)

    def find(self, image: NDArray[np.uint8]) -> list[HandBox]:
        return self.boxes


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-run"),))


def checkpoint_of(folder: Path, name: str, weights: dict[str, torch.Tensor], more: object) -> Path:
    """Write a Lightning checkpoint where its publisher has it, with all that such files carry along."""
    place = folder / ("hamer_ckpts/checkpoints/hamer.ckpt" if name == "hamer" else "pretrained_models/wilor_final.ckpt")
    place.parent.mkdir(parents=True)
    content = {"epoch": 3, "state_dict": weights, "callbacks": {Path: more}, "hyper_parameters": more, "loops": {1, 2}}
    torch.save(content, place)
    config = place.parent.parent if name == "hamer" else place.parent
    (config / "model_config.yaml").write_text(yaml.safe_dump(CONFIG))
    return place


def mean_hand() -> dict[str, torch.Tensor]:
    """A mean hand whose 6d rotations are not degenerate, before the camera."""
    turns = torch.tensor([1.0, 0.1, -0.2, 0.9, 0.1, 0.3]).repeat(16)[None]
    return {"init_hand_pose": turns, "init_betas": torch.zeros(1, 10), "init_cam": torch.tensor([[0.9, 0.02, -0.05]])}


def small_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real class, whose code sets the size of its vision transformer, given a small one of the same class."""
    pytest.importorskip(name, reason=f"the user's package {name} is not installed (docs/models.md)")
    missing = f"{name} is installed without what it needs (docs/models.md)"
    models = pytest.importorskip(f"{name}.models", reason=missing, exc_type=ImportError)
    backbones = importlib.import_module(f"{name}.models.backbones")
    vit = importlib.import_module(f"{name}.models.backbones.vit")
    size: dict[str, Any] = {"img_size": (256, 192), "patch_size": 16, "embed_dim": WIDTH, "depth": 2, "num_heads": 4,
                            "ratio": 1, "mlp_ratio": 2, "qkv_bias": True, "drop_path_rate": 0.55}  # fmt: skip
    own = {"hamer": lambda cfg: vit.ViT(**size), "wilor": lambda cfg: vit.ViT(**size, cfg=cfg)}
    monkeypatch.setattr(backbones, "vit", own[name])
    if name == "wilor":
        module = importlib.import_module("wilor.models.wilor")
        real = module.RefineNet
        monkeypatch.setattr(module, "RefineNet", lambda cfg, feat_dim, upscale: real(cfg, WIDTH, upscale))
    return models


@pytest.fixture(params=["hamer", "wilor"])
def published(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Any, dict[str, Path]]:
    """Name, the real network as its publisher makes it, and the files to load it from; another working directory."""
    name = request.param
    models = small_classes(name, monkeypatch)
    mano = write_mano(tmp_path / "mano", "right")
    config = importlib.import_module("yacs.config").CfgNode(CONFIG)
    data = mano_npz(tmp_path / "npz", mano / "MANO_RIGHT.pkl")
    config.MANO.MODEL_PATH, config.MANO.MEAN_PARAMS, config.MANO.EXT = str(data), str(data / "mean.npz"), "npz"
    config.MODEL.BACKBONE.pop("PRETRAINED_WEIGHTS")
    torch.manual_seed(0)
    network = getattr(models, CLASSES[name])(config, init_renderer=False).eval()
    with torch.no_grad():  # what it sees moves the hand and the camera a little, as of a trained one
        for key, weights in network.named_parameters():
            if key.endswith(("cam.weight", "cam.bias")):
                weights.mul_(0.1)
    path = checkpoint_of(tmp_path / "files", name, network.state_dict(), config)
    monkeypatch.chdir(tmp_path)
    return name, network, {name: path if name == "hamer" else tmp_path / "files", "mano": mano}


def mano_npz(folder: Path, pickled: Path) -> Path:
    from fmh_ros.core.cues.foundation.hand_networks import _mano_arrays

    folder.mkdir()
    np.savez(folder / "MANO_RIGHT.npz", **_mano_arrays(pickled))
    mean = mean_hand()
    np.savez(folder / "mean.npz", pose=mean["init_hand_pose"][0], shape=mean["init_betas"][0], cam=mean["init_cam"][0])
    return folder


def picture(seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    return np.kron(noise, np.ones((16, 16, 1), np.uint8))


def test_the_published_folder_makes_the_published_network(published: tuple[str, Any, dict[str, Path]]) -> None:
    name, network, models = published
    made = make_hamer(models, {"detector": object()}, "cpu")
    assert made.name == name and type(made.network) is type(network)
    assert not made.network.training and not any(each.requires_grad for each in made.network.parameters())
    ours, theirs = made.network.state_dict(), network.state_dict()
    assert all(torch.equal(ours[key], theirs[key].to(ours[key].dtype)) for key in ours)
    pixels = torch.as_tensor(np.random.default_rng(3).normal(size=(1, 3, 256, 256)), dtype=torch.float32)
    with torch.inference_mode():
        answer, expected = made.network({"img": pixels}), network({"img": pixels})
    for key in ("pred_cam", "pred_vertices", "pred_keypoints_3d", "pred_keypoints_2d"):
        torch.testing.assert_close(answer[key], expected[key], rtol=1e-5, atol=1e-6)


def test_the_place_is_the_publishers_for_the_true_camera(published: tuple[str, Any, dict[str, Path]]) -> None:
    name, network, models = published
    made = make_hamer(models, {"detector": object()}, "cpu")
    image = picture()
    found = made.look(Frame(image, CAMERA), BOX)
    square = Square(np.array([360.0, 190.0]), 2 * max(140.0, 120 * 256 / 192))
    crop = hand_crop(image, square, mirrored=False)
    with torch.inference_mode():
        answer = network({"img": to_tensor(crop, (256, 256), IMAGENET, Placement())})
    convert = importlib.import_module(f"{name}.utils.renderer").cam_crop_to_full
    # The publisher takes the principal point to be in the middle: a picture of this size has it where ours is.
    size = 2 * torch.tensor([[250.0, 300.0]])
    place = convert(answer["pred_cam"], torch.tensor([[360.0, 190.0]]), torch.tensor([square.side]), size, 610.0)
    np.testing.assert_allclose(found.vertices, (answer["pred_vertices"] + place[:, None])[0], atol=1e-4)
    np.testing.assert_allclose(found.keypoints, (answer["pred_keypoints_3d"] + place[:, None])[0], atol=1e-4)
    assert found.vertices[:, 2].min() > 0 and np.ptp(found.keypoints, 0).min() > 0.01
    # Where the hand's middle is seen is where the network says in its crop.
    seen = CAMERA.project(found.keypoints.mean(0)[None])[0]
    told = answer["pred_keypoints_2d"][0].mean(0).numpy() * square.side + square.centre
    np.testing.assert_allclose(seen, told, atol=0.03 * square.side)


def test_left_hands_are_seen_mirrored_and_mirrored_back(published: tuple[str, Any, dict[str, Path]]) -> None:
    _, _, models = published
    made = make_hamer(models, {"detector": object()}, "cpu")
    frame = Frame(picture(), CAMERA)
    x0, y0, x1, y1 = BOX.box
    left = HandBox((639 - x1, y0, 639 - x0, y1), "left", 0.8)
    flip = np.array([-1.0, 1.0, 1.0])
    right_hand, left_hand = made.look(frame, BOX), made.look(frame.mirrored(), left)
    np.testing.assert_allclose(left_hand.vertices * flip, right_hand.vertices, atol=2e-3)
    as_right = made.look(frame.mirrored(), HandBox(left.box, "right", 0.8))  # it does look at the picture
    assert np.abs(as_right.keypoints - left_hand.keypoints).max() > 5e-3
    (seen,) = ManoRegressor(made.network, Told(left), made.rig).detect(frame.mirrored())
    (other,) = ManoRegressor(made.network, Told(BOX), made.rig).detect(frame)
    assert (seen.side, other.side) == ("left", "right")
    np.testing.assert_allclose(seen.keypoints_2d, other.keypoints_2d * [-1, 1] + [639, 0], atol=2)


def test_its_joints_are_in_our_order(published: tuple[str, Any, dict[str, Path]]) -> None:
    _, _, models = published
    made = make_hamer(models, {"detector": object()}, "cpu")
    rig = load_mano_rig(models["mano"] / "MANO_RIGHT.pkl")
    with torch.inference_mode():
        joints = made.network.mano().joints[0].double().numpy()
    R = hand_axes(joints[0], joints[5], joints[9], joints[17])
    tips = rig.keypoints[[4, 8, 12, 16, 20]]
    np.testing.assert_allclose((joints - joints[0]) @ R.T, mano_keypoints(np.zeros(3), rig.joints, tips), atol=1e-5)


def test_a_checkpoint_without_a_part_is_refused(published: tuple[str, Any, dict[str, Path]], tmp_path: Path) -> None:
    name, network, models = published
    weights = {key: value for key, value in network.state_dict().items() if "blocks.1." not in key}
    path = checkpoint_of(tmp_path / "less", name, weights, None)
    with pytest.raises(ModelFileError, match=r"blocks\.1\."):
        make_hamer({**models, name: path}, {"detector": object()}, "cpu")


def test_nothing_that_a_checkpoint_names_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"a.weight": torch.arange(6.0).view(2, 3).to(torch.bfloat16), "a.b": torch.nn.Parameter(torch.ones(2))}
    more = {"cfg": Evil(), "optimizer_states": [Evil(), CAMERA], "nested": [{"x": np.ones(3)}]}
    read = read_weights(checkpoint_of(tmp_path, "wilor", weights, more))
    assert read.keys() == weights.keys() and all(torch.equal(read[key], weights[key]) for key in weights)
    assert not Path("evil-was-run").exists()
    torch.save({"model": weights}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="state_dict"):
        read_weights(tmp_path / "other.ckpt")


class Config(SimpleNamespace):
    def defrost(self) -> None:
        self.frozen = False

    def freeze(self) -> None:
        self.frozen = True


class StandIn(torch.nn.Module):
    """Takes what the published classes take, and keeps what it saw."""

    def __init__(self, part: str, cfg: Config, init_renderer: bool = True) -> None:
        super().__init__()
        self.config, self.init_renderer = cfg, init_renderer
        with np.load(Path(cfg.MANO.MODEL_PATH) / f"MANO_RIGHT.{cfg.MANO.EXT}") as mano:
            self.template = mano["v_template"]
        with np.load(cfg.MANO.MEAN_PARAMS) as mean:
            self.mean = {key: mean[key] for key in mean.files}
        setattr(self, part, torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["hamer", "wilor"])
def test_the_users_packages_are_called_as_they_want(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = "mano_head" if name == "hamer" else "backbone"
    weights = {f"{part}.weight": torch.eye(2).bfloat16(), f"{part}.bias": torch.ones(2)}
    weights |= {f"{part}.{key}": value for key, value in mean_hand().items()}
    place = checkpoint_of(tmp_path, name, weights, None)
    asked: list[str] = []

    def get_config(path: str) -> Config:
        asked.append(path)
        backbone = {"PRETRAINED_WEIGHTS": "x"}
        return Config(MANO=Config(), MODEL=Config(BACKBONE=backbone), LOSS_WEIGHTS=Config(ADVERSARIAL=1), frozen=True)

    models, configs, yolo = ModuleType(f"{name}.models"), ModuleType(f"{name}.configs"), ModuleType("ultralytics")
    setattr(models, CLASSES[name], functools.partial(StandIn, part))
    configs.get_config = get_config  # type: ignore[attr-defined]
    yolo.YOLO = lambda path: SimpleNamespace(to=lambda device: (path, device))  # type: ignore[attr-defined]
    for module in (models, configs, yolo):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "detector.pt").touch()
    files = {name: place, "mano": write_mano(tmp_path / "m", "right"), "wilor-detector": tmp_path / "detector.pt"}
    made = make_hamer(files, {}, "cpu")
    assert made.name == name and made.rig.name == "mano"
    config_folder = place.parent.parent if name == "hamer" else place.parent
    assert asked == [str(config_folder / "model_config.yaml")]
    network = made.network
    assert network.config.frozen and network.config.MODEL.BACKBONE == {} and not network.init_renderer
    np.testing.assert_allclose(network.mean["pose"], mean_hand()["init_hand_pose"][0])
    assert len(network.template) == len(made.rig.vertices)
    assert {each.dtype for each in network.parameters()} == {torch.float32}
    assert torch.equal(getattr(network, part).weight, torch.eye(2))
    assert isinstance(made.boxes, YoloHandBoxes) and made.boxes.detector == (str(tmp_path / "detector.pt"), "cpu")
    (config_folder / "model_config.yaml").unlink()
    with pytest.raises(ModelFileError, match=r"model_config\.yaml"):
        make_hamer(files, {}, "cpu")


@pytest.mark.parametrize("name", ["hamer", "wilor"])
def test_a_package_that_is_not_there_is_named_with_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"{name}.configs", None)
    place = checkpoint_of(tmp_path, name, {}, None)
    with pytest.raises(ModelMissingError, match=rf"{name}.configs"):
        make_hamer({name: place, "mano": write_mano(tmp_path / "m", "right")}, {}, "cpu")
