# SPDX-License-Identifier: Apache-2.0
"""The published rasteriser beside ours: the same images of an asymmetric mesh, and gradients that are its images' own.

Most of it needs PyTorch3D, which is the user's to install (docs/models.md).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from guidance_scene import GaussianShapeModel, moved, observe, shape_grid, slab_hand
from scipy.spatial.transform import Rotation
from torch import Tensor

from fmh_ros.core.errors import ModelMissingError
from fmh_ros.core.fields.dense import DenseMesh, extract_mesh
from fmh_ros.core.fields.dense_pytorch3d import pytorch3d_camera, rasterise_mesh
from fmh_ros.core.fields.dense_render import render_mesh
from fmh_ros.core.fields.pose import TorchPose, torch_pose
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted, camera_rays
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.guidance.config import preset
from fmh_ros.core.guidance.guide import guide
from fmh_ros.core.transforms import Similarity


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("pytorch3d.renderer", reason="PyTorch3D is not installed (docs/models.md)")


#: Neither square nor with the same focal length both ways, and the principal point far from the middle.
CAMERA = CameraModel(40, 30, np.array([[106.0, 0, 9.0], [0, 94.0, 19.5], [0, 0, 1.0]]))
POSE = Similarity(
    Rotation.from_euler("xyz", [20, 35, -10], degrees=True).as_matrix(), np.array([0.06, -0.03, 0.6]), 0.09
)
RAYS = camera_rays(CAMERA)
SHARP = RenderSettings(65, softness_voxels=0.02)


def bent(corner: float = 0.0) -> DenseMesh:
    """An L-shaped block of three unlike arms with a ball at one end; no turn or mirror maps it to itself."""
    axis = torch.linspace(-1, 1, 33, dtype=torch.float64)
    p = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)

    def box(low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
        middle, half = (torch.tensor([s * (a + b) for a, b in zip(low, high, strict=True)]) for s in (0.5, 0.5))
        half = half - torch.tensor(low)
        away = (p - middle).abs() - half
        return away.clamp_min(0).norm(dim=-1) + away.amax(-1).clamp_max(0)

    low = (-0.5, -0.5, -0.5)
    parts = [box(low, (0.7, -0.2, -0.2)), box(low, (-0.25, 0.5, -0.25)), box(low, (-0.3, -0.3, 0.25 + corner))]
    ball = (p - torch.tensor([0.6, -0.35, -0.3])).norm(dim=-1) - 0.22
    return extract_mesh(torch.stack([*parts, ball]).amin(0).float(), 1.0)


def both(mesh: DenseMesh, pose: TorchPose, settings: RenderSettings = SHARP) -> tuple[RenderedField, RenderedField]:
    return (how(mesh, 1.0, pose, RAYS, settings) for how in (rasterise_mesh, render_mesh))  # type: ignore[return-value]


def test_points_are_seen_where_our_camera_sees_them(library: Any) -> None:
    points = np.array([[0.1, -0.05, 0.6], [-0.03, 0.02, 0.9], [0.0, 0.0, 0.3]])
    seen = pytorch3d_camera(RAYS).transform_points_screen(torch.as_tensor(points).float())
    # Its pixels begin at integers, ours have their middle there.
    np.testing.assert_allclose(seen[:, :2] - 0.5, CAMERA.project(points), atol=1e-3)


def test_depth_normals_and_silhouette_are_those_of_our_rasteriser(library: Any) -> None:
    theirs, ours = both(bent(), torch_pose(POSE, dtype=torch.float32))
    apart = theirs.hit != ours.hit
    assert 100 < int(ours.hit.sum()) < 900 and int(apart.sum()) <= 3
    same = theirs.hit & ours.hit
    # Where two surfaces meet at an edge of the mesh, rounding chooses.
    assert float((theirs.depth - ours.depth)[same].abs().quantile(0.99)) < 1e-5
    assert float((theirs.depth - ours.depth)[same].abs().max()) < 2e-3
    assert float((theirs.normals - ours.normals)[same].norm(dim=-1).quantile(0.99)) < 2e-3
    assert torch.isnan(theirs.depth[~theirs.hit]).all() and torch.isnan(theirs.normals[~theirs.hit]).all()
    masks = (theirs.silhouette > 0.5, ours.silhouette > 0.5)
    assert int((masks[0] != masks[1]).sum()) <= 3
    mirrored = ours.hit.flip(1)
    assert int((mirrored != theirs.hit).sum()) > 80  # the scene tells left from right


def test_a_soft_silhouette_is_ours_but_for_the_faces_that_add_up_at_the_outline(library: Any) -> None:
    settings = RenderSettings(65, softness_voxels=1.0)
    theirs, ours = both(bent(), torch_pose(POSE, dtype=torch.float32), settings)
    assert float(theirs.silhouette[~ours.hit].max()) > 0 and float(theirs.silhouette.max()) <= 1
    far = ours.silhouette == 0
    assert far.any() and float(theirs.silhouette[far].max()) < 0.02
    assert float(theirs.silhouette[ours.silhouette == 1].min()) > 0.98
    outside = ~ours.hit & (ours.silhouette > 0.05)
    assert np.corrcoef(theirs.silhouette[outside], ours.silhouette[outside])[0, 1] > 0.8
    assert (theirs.silhouette - ours.silhouette)[ours.hit].mean() > 0


def test_only_what_is_wanted_is_in_the_result(library: Any) -> None:
    left = torch.zeros(RAYS.shape[:2], dtype=torch.bool)
    left[:, :21] = True
    pose = torch_pose(POSE, dtype=torch.float32)
    whole = rasterise_mesh(bent(), 1.0, pose, RAYS, SHARP)
    part = rasterise_mesh(bent(), 1.0, pose, RAYS, SHARP, Wanted(left, left, left))
    assert whole.hit[~left].any() and not part.hit[~left].any() and part.silhouette[~left].max() == 0
    torch.testing.assert_close(part.depth[left], whole.depth[left], equal_nan=True)
    nothing = rasterise_mesh(extract_mesh(torch.ones(9, 9, 9), 1.0), 1.0, pose, RAYS, SHARP)
    assert not nothing.hit.any() and nothing.silhouette.max() == 0 and nothing.depth.isnan().all()


@pytest.mark.parametrize("what", ["depth", "normals", "silhouette"])
def test_gradients_reach_the_shape_and_agree_with_ours_or_with_finite_differences(what: str, library: Any) -> None:
    settings = RenderSettings(21, softness_voxels=1.0)
    latent = torch.tensor([0.3, -0.2, 0.1, 0.3, -0.2, 0.4])
    pose = torch_pose(replace(POSE, scale=0.12), dtype=torch.float32)
    keep = rasterise_mesh(extract_mesh(shape_grid(latent, 21), 1.0), 1.0, pose, RAYS, settings).hit
    inner = torch.nn.functional.avg_pool2d(keep[None].float(), 5, 1, 2)[0] > 0.99
    weights = torch.rand((*RAYS.shape[:2], 3), generator=torch.Generator().manual_seed(0))

    def value(at: Tensor, how: Any) -> Tensor:
        image = getattr(how(extract_mesh(shape_grid(at, 21), 1.0), 1.0, pose, RAYS, settings), what)
        if what == "silhouette":
            return (image * weights[..., 0]).sum()
        image = image if what == "normals" else image[..., None]
        return (image * weights[..., : image.shape[-1]])[inner].sum()

    def slope(how: Any) -> Tensor:
        leaf = latent.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf, how), leaf)
        return gradient

    theirs = slope(rasterise_mesh)
    assert float(theirs.norm()) > 1e-4
    if what == "silhouette":
        along = theirs / theirs.norm()
        step = 0.02 * along
        rise = (value(latent + step, rasterise_mesh) - value(latent - step, rasterise_mesh)) / 0.04
        assert float(rise) == pytest.approx(float(theirs.norm()), rel=0.15)
        return
    expected = slope(render_mesh)
    assert float(torch.nn.functional.cosine_similarity(theirs, expected, dim=0)) > 0.97
    assert float(theirs.norm() / expected.norm()) == pytest.approx(1, abs=0.15)


def test_the_paper_preset_runs_on_it(library: Any) -> None:
    latent = torch.tensor([0.3, -0.2, 0.1, 0.3, -0.2, 0.4])
    pose = Similarity(POSE.rotation, np.array([0.006, -0.004, 0.5]), 0.07)
    scene = observe(latent, pose, slab_hand(), True)
    config = replace(preset("paper"), object_surface="dense_mesh_pytorch3d", render_size=24)
    counts = {"hand": 1, "object": 4, "joint": 1}
    phases = {name: replace(getattr(config, name), iterations=count) for name, count in counts.items()}
    result = guide(
        GaussianShapeModel(tuple(latent.tolist()), 0.02), None, moved(scene.T_camera_object, (0.012, -0.01, 0.0)),
        scene.hand, scene.hand_field, scene.supervision, replace(config, **phases),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    held = result.phases[1]
    assert held.loss_last < 0.9 * held.loss_first and not held.rolled_back


def test_without_the_library_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.delitem(sys.modules, "pytorch3d.renderer", raising=False)
    with pytest.raises(ModelMissingError, match="facebookresearch/pytorch3d"):
        rasterise_mesh(bent(), 1.0, torch_pose(POSE, dtype=torch.float32), RAYS)
