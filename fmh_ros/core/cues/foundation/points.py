# SPDX-License-Identifier: Apache-2.0
"""The visible surface from one image: MoGe-2, Depth Pro, or Depth Anything's metric networks.

All of them look through a camera with square pixels and the principal point in its middle. Ours has neither in general:
a region of interest, or a crop, puts the principal point anywhere. So the picture is resampled into such a camera that
shares the real one's centre, and depth is brought back along the rays, which changes nothing but where a pixel lies.

``make_moge``: model ``moge`` (Ruicheng/moge-2-vitl-normal, file model.pt; MIT, its DINOv2 part Apache-2.0), through the
user's installed package ``moge`` (MIT, not on PyPI). ``make_depth_anything``: model ``depth-anything``
(depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf, Apache-2.0; Base and Large are CC BY-NC). ``make_depth_pro``:
model ``depth-pro`` (apple/DepthPro-hf, Apple's research licence: not for products). Options: dtype; for MoGe
resolution_level (0 to 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.backends import MOGE
from fmh_ros.core.cues.completion import rotation_to_ray
from fmh_ros.core.cues.point_map import drop_strays, normals_from_depth, remove_flying_pixels
from fmh_ros.core.cues.types import HandObservation, PointMap, SceneMasks
from fmh_ros.core.errors import ModelFileError, ModelMissingError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.pretrained import (
    HALF,
    IMAGENET,
    Placement,
    library_class,
    load_network,
    local_path,
    placement,
    shared,
    size_for,
    to_tensor,
    where_is,
)

FloatArray = NDArray[np.float64]
Map = NDArray[np.float32]

#: Padding until the principal point is in the middle may enlarge the picture by so much; beyond, the camera is turned.
MOST_PADDING = 1.3
#: Relative error of the scale, one sigma, that these networks are believed with before the hand anchors it.
MOGE_SIGMA, DEPTH_SIGMA = 0.1, 0.2
_DEPTH_PRO_SIDE = 1536


@dataclass(frozen=True)
class CentredView:
    """A camera with square pixels and a centred principal point that sees all that the real one sees.

    rotation : (3, 3), directions in this camera's axes to the real one's; camera : its intrinsics; homography : (3, 3)
    pixels of the real image to pixels of this one.
    """

    rotation: FloatArray
    camera: CameraModel
    homography: FloatArray

    @property
    def fov_x(self) -> float:
        """Horizontal field of view, degrees."""
        return float(2 * np.degrees(np.arctan(self.camera.width / 2 / self.camera.K[0, 0])))

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample an image (H, W, 3) into this camera; beyond its border its edge is continued."""
        size = (self.camera.width, self.camera.height)
        seen = cv2.warpPerspective(
            image, self.homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(seen, np.uint8)

    def depth_back(self, depth: Map, real: CameraModel) -> Map:
        """Bring depth along this camera's z to (H, W) along the real camera's z, metres; NaN stays NaN."""
        directions = real.rays(real.pixel_grid()) @ self.rotation
        # Along a ray the point is direction * z'; the real camera's z of a direction is 1 by definition of rays.
        return (self._sample(depth, directions) / directions[..., 2]).astype(np.float32)

    def normals_back(self, normals: Map, real: CameraModel) -> Map:
        """Bring unit normals (h, w, 3) back and turn them towards the real camera; NaN stays NaN."""
        rays = real.rays(real.pixel_grid())
        turned = self._sample(normals, rays @ self.rotation) @ self.rotation.T
        with np.errstate(invalid="ignore", divide="ignore"):
            turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
            turned[(turned * rays).sum(-1) > 0] *= -1
        return np.asarray(turned, np.float32)

    def _sample(self, values: Map, directions: FloatArray) -> FloatArray:
        pixels = self.camera.project(directions).astype(np.float32)
        # This camera sees all of the real picture: what lies outside does so by less than half a pixel.
        u, v = (np.ascontiguousarray(pixels[..., k]) for k in (0, 1))
        found = cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float64)


def centred_view(camera: CameraModel) -> CentredView:
    """Return the centred camera: the same orientation with padding, or turned to look at the picture's middle."""
    edges = np.array([[x, y] for x in (-0.5, camera.width - 0.5) for y in (-0.5, camera.height - 0.5)])
    rays = camera.rays(edges)
    focal = camera.focal

    def half(rotation: FloatArray) -> FloatArray:
        seen = rays @ rotation
        result: FloatArray = np.abs(seen[:, :2] / seen[:, 2:]).max(0)
        return result

    rotation = np.eye(3)
    middle = camera.rays(np.array([(camera.width - 1) / 2, (camera.height - 1) / 2]))
    turned = rotation_to_ray(middle)
    if float(half(rotation).prod()) > MOST_PADDING * float(half(turned).prod()):
        rotation = turned
    width, height = (2 * int(np.ceil(side * focal - 1e-6)) for side in half(rotation))
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    view = CameraModel(width, height, K, (), camera.source)
    return CentredView(rotation, view, K @ rotation.T @ np.linalg.inv(camera.K))


@dataclass(frozen=True)
class Surface:
    """What a network says of a centred picture: depth (h, w) metres along z and normals (h, w, 3) or None, NaN where
    it does not know."""

    depth: Map
    normals: Map | None


class DepthNetwork(Protocol):
    """Depth of pictures by cameras with square pixels and a centred principal point."""

    name: str
    scale_sigma: float

    def look(self, image: NDArray[np.uint8], camera: CameraModel) -> Surface:
        """Return the surface in an image (h, w, 3) RGB."""
        ...


class NetworkPointMapper:
    """`PointMapper` by a depth network."""

    def __init__(self, network: DepthNetwork) -> None:
        self.network, self.name = network, network.name

    def map_points(self, frame: Frame, hand: HandObservation, masks: SceneMasks) -> PointMap | None:
        """Return cleaned depth (metres) and normals; None when nothing of the object has a depth.

        The scale is the network's own; ``anchor_on_hand`` ties it to the fitted hand.
        """
        view = centred_view(frame.camera)
        surface = self.network.look(view.picture(frame.image), view.camera)
        depth = view.depth_back(surface.depth, frame.camera)
        depth = drop_strays(remove_flying_pixels(np.where(depth > 0, depth, np.nan).astype(np.float32)), masks.object)
        if not np.isfinite(depth[masks.object]).any():
            return None
        if surface.normals is None:
            normals = normals_from_depth(depth, frame.camera)
        else:
            normals = view.normals_back(surface.normals, frame.camera)
            normals[~np.isfinite(depth)] = np.nan
        return PointMap(depth, normals, "network", self.network.scale_sigma)


class MogeNetwork:
    """`DepthNetwork` by ``MoGeModel`` of the package ``moge`` 2 or later.

    model : has ``infer(image (3, H, W) in 0..1, fov_x=degrees, resolution_level=, use_fp16=)`` that returns a dict with
    depth (H, W) metres along z, infinite where unknown, mask (H, W) bool, and normal (H, W, 3) if the model has them;
    OpenCV's camera axes, as ours.
    """

    name, scale_sigma = "moge", MOGE_SIGMA

    def __init__(self, model: Any, resolution_level: int = 9) -> None:
        self.model, self.resolution_level = model, resolution_level

    @classmethod
    def load(cls, path: Path, where: Placement, resolution_level: int = 9) -> MogeNetwork:
        """Load model.pt, or the folder with it. Raises ModelMissingError or ModelFileError."""
        kind = library_class("moge.model.v2", "MoGeModel", MOGE)
        file = path / "model.pt" if path.is_dir() else path
        if not file.is_file():
            raise ModelMissingError(f"There is no {file}", change="Run fmh models pull with the profile")

        def make() -> Any:
            try:
                model = kind.from_pretrained(file)  # reads with weights_only
            except Exception as error:  # a damaged pickle raises nearly anything
                raise ModelFileError(
                    f"{file} cannot be loaded as MoGe: {error}", change="Run fmh models verify"
                ) from error
            return model.eval().to(where.device, where.dtype)

        return cls(shared(("moge", file, where), make), resolution_level)

    def look(self, image: NDArray[np.uint8], camera: CameraModel) -> Surface:
        """Return metric depth with the camera's true field of view given to the network."""
        where = where_is(self.model)
        pixels = torch.as_tensor(np.ascontiguousarray(image), device=where.device).permute(2, 0, 1).float() / 255
        fov = float(2 * np.degrees(np.arctan(camera.width / 2 / camera.K[0, 0])))
        found = self.model.infer(
            pixels.to(where.dtype),
            fov_x=fov,
            resolution_level=self.resolution_level,
            use_fp16=where.device != "cpu" and where.dtype == torch.float32,
        )
        depth = found["depth"].float().cpu().numpy()
        known = np.isfinite(depth)
        if "mask" in found:
            known &= found["mask"].cpu().numpy().astype(bool)
        normals = None
        if found.get("normal") is not None:
            normals = np.where(known[..., None], found["normal"].float().cpu().numpy(), np.nan).astype(np.float32)
        return Surface(np.where(known, depth, np.nan).astype(np.float32), normals)


class DepthProNetwork:
    """`DepthNetwork` by ``DepthProForDepthEstimation``.

    It predicts inverse depth times the focal length over the picture's width, from the picture squashed to a square;
    its own guess of the focal length is not used.
    """

    name, scale_sigma = "depth-pro", DEPTH_SIGMA

    def __init__(self, network: Any, side: int = _DEPTH_PRO_SIDE) -> None:
        self.network, self.side = network, side

    def look(self, image: NDArray[np.uint8], camera: CameraModel) -> Surface:
        """Return depth = focal length / (width * prediction), metres."""
        pixels = to_tensor(image, (self.side, self.side), HALF, where_is(self.network))
        with torch.inference_mode():
            predicted = _resize(self.network(pixel_values=pixels).predicted_depth, image.shape)
        inverse = np.clip(predicted * camera.width / camera.K[0, 0], 1e-4, 1e4)
        return Surface((1 / inverse).astype(np.float32), None)


class DepthAnythingNetwork:
    """`DepthNetwork` by ``DepthAnythingForDepthEstimation`` with metric weights: they say metres directly."""

    name, scale_sigma = "depth-anything", DEPTH_SIGMA

    def __init__(self, network: Any, shortest: int = 518) -> None:
        self.network, self.shortest = network, shortest
        if network.config.depth_estimation_type != "metric":
            raise ModelFileError(
                "These weights of Depth Anything estimate relative depth",
                expected="the metric ones",
                change="Use depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
            )

    def look(self, image: NDArray[np.uint8], camera: CameraModel) -> Surface:
        """Return depth, metres."""
        size = size_for(image.shape, self.shortest, 4 * self.shortest, int(self.network.config.patch_size))
        pixels = to_tensor(image, size, IMAGENET, where_is(self.network))
        with torch.inference_mode():
            return Surface(_resize(self.network(pixel_values=pixels).predicted_depth, image.shape), None)


def _resize(predicted: torch.Tensor, shape: tuple[int, ...]) -> Map:
    """Resize a prediction (1, h, w) to a picture's height and width."""
    values = torch.nn.functional.interpolate(predicted[:, None].float(), shape[:2], mode="bilinear")
    return values[0, 0].cpu().numpy().astype(np.float32)


def make_moge(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> NetworkPointMapper:
    """Load MoGe. Raises ModelMissingError, ModelFileError or ProfileError."""
    where, level = placement(options, device), int(options.get("resolution_level", 9))
    return NetworkPointMapper(MogeNetwork.load(local_path(models, "moge"), where, level))


def make_depth_anything(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> NetworkPointMapper:
    """Load Depth Anything V2. Raises ModelMissingError, ModelFileError or ProfileError."""
    folder, where = local_path(models, "depth-anything"), placement(options, device)
    network = load_network("transformers", "DepthAnythingForDepthEstimation", folder, where)
    return NetworkPointMapper(DepthAnythingNetwork(network))


def make_depth_pro(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> NetworkPointMapper:
    """Load Depth Pro. Raises ModelMissingError, ModelFileError or ProfileError."""
    folder, where = local_path(models, "depth-pro"), placement(options, device)
    return NetworkPointMapper(
        DepthProNetwork(load_network("transformers", "DepthProForDepthEstimation", folder, where))
    )
