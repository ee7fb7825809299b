# SPDX-License-Identifier: Apache-2.0
"""A small scene with known truth for the guidance tests: an analytic generator, a slab of a hand, rendered images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import trimesh
from torch import Tensor

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.mesh import MeshField, mesh_field
from fmh_ros.core.fields.pose import torch_pose
from fmh_ros.core.fields.render import RenderSettings, camera_rays, render
from fmh_ros.core.frame.camera import CameraModel, camera_from_field_of_view
from fmh_ros.core.guidance.supervision import Supervision, make_supervision
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.transforms import Similarity

SIZE = 64
CAMERA: CameraModel = camera_from_field_of_view(SIZE, SIZE, 24.0)
TRUNCATION = 0.1


class GaussianShapeModel:
    """Superellipsoids whose parameters have a normal prior, for which the rectified flow is known in closed form.

    latent (1, 6): centre offset (3) and log half-axes (3), in units of ``spread`` about the prior's mean.
    """

    name = "gaussian"
    latent_shape = (6,)
    bounds = 1.0
    temperature = 1.0

    def __init__(self, mean: tuple[float, ...] = (0.0,) * 6, deviation: float = 0.5) -> None:
        self.mean = torch.tensor([mean])
        self.deviation = deviation

    def encode_condition(self, view: ObjectView) -> None:
        return None

    @torch.no_grad()
    def velocity(self, latent: Tensor, sigma: float, condition: None) -> Tensor:
        gain = sigma * self.deviation**2 / (sigma**2 * self.deviation**2 + (1.0 - sigma) ** 2)
        clean = self.mean + gain * (latent - sigma * self.mean)
        return (clean - latent) / (1.0 - sigma)

    def decode(self, latent: Tensor) -> GridField:
        return GridField(shape_grid(latent[0]), self.bounds)

    def canonical_to_view(self, view: ObjectView) -> Similarity | None:
        return view.T_camera_view


def shape_grid(latent: Tensor, resolution: int = 48) -> Tensor:
    """Truncated distance (R, R, R) of a rounded superellipsoid: half-axes 0.5 exp(0.3 l)."""
    axis = torch.linspace(-1, 1, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    centre, axes = 0.1 * latent[:3], 0.5 * torch.exp(0.3 * latent[3:])
    q = (points - centre) / axes
    radius = (q.abs() + 1e-6).pow(4).sum(-1).pow(0.25)
    normal = (q.abs() + 1e-6).pow(3) * q.sign() / radius[..., None] ** 3 / axes
    distance = (radius - 1.0) / normal.norm(dim=-1)
    return TRUNCATION * torch.tanh(distance / TRUNCATION)


def slab_hand(scale_sigma: float = 0.05) -> HandMesh:
    """A closed slab, 9 x 8 x 2 cm, standing for a hand: x along the fingers, z out of its back."""
    mesh = trimesh.creation.box((0.09, 0.08, 0.02))
    for _ in range(4):
        mesh = mesh.subdivide()
    mesh.apply_translation((0.045, 0.0, 0.0))
    fingers = np.clip(((mesh.vertices[:, 1] + 0.04) / 0.08 * 6).astype(int), 0, 5)
    keypoints = np.zeros((21, 3))
    for finger in range(5):
        for joint in range(4):
            keypoints[1 + 4 * finger + joint] = (0.02 + 0.02 * joint, -0.032 + 0.016 * finger, 0.0)
    return HandMesh(
        "right",
        Similarity(np.eye(3), np.array([-0.045, 0.03, 0.452])),
        np.asarray(mesh.vertices),
        np.asarray(mesh.faces, np.int64),
        fingers.astype(np.int64),
        keypoints,
        1.0,
        scale_sigma,
        0.0,
        1.0,
    )


@dataclass(frozen=True)
class Scene:
    """The truth and what a camera sees of it."""

    latent: Tensor
    T_camera_object: Similarity
    hand: HandMesh
    hand_field: MeshField
    supervision: Supervision
    occluded: np.ndarray


def observe(
    latent: Tensor, T_camera_object: Similarity, hand: HandMesh, with_depth: bool, truth: Similarity | None = None
) -> Scene:
    """Render hand and object, each hiding the other, into the supervision guidance works from."""
    rays = camera_rays(CAMERA)
    field = mesh_field(hand.vertices, hand.faces)
    T_hand = hand.T_camera_hand if truth is None else truth
    T_field = torch_pose(T_hand @ field.T_mesh_field)
    hand_image = render(field.field, T_field, rays, RenderSettings(field.resolution))
    held = render(GridField(shape_grid(latent, 64)), torch_pose(T_camera_object), rays)
    far = 1e6
    first = hand_image.depth.nan_to_num(far) < held.depth.nan_to_num(far)
    hand_visible, object_visible = (hand_image.hit & first).numpy(), (held.hit & ~first).numpy()
    depth = torch.where(first, hand_image.depth, held.depth).numpy()
    normals = torch.where(first[..., None], hand_image.normals, held.normals).numpy()
    supervision = make_supervision(
        CAMERA,
        hand_visible=hand_visible,
        object_visible=object_visible,
        hand_dont_care=object_visible,
        object_dont_care=hand_visible,
        depth=depth if with_depth else None,
        normals=normals,
        keypoints_2d=CAMERA.project(T_hand.apply(hand.keypoints)),
        hand_px=float(np.ptp(CAMERA.project(T_hand.apply(hand.vertices)), axis=0).max()),
    )
    occluded = held.hit.numpy() & ~object_visible
    return Scene(latent, T_camera_object, hand, field, supervision, occluded)


def moved(pose: Similarity, shift: tuple[float, float, float], scale: float = 1.0) -> Similarity:
    """The same pose displaced in the camera frame."""
    return replace(pose, translation=pose.translation + np.array(shift), scale=pose.scale * scale)
