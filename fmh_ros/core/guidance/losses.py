# SPDX-License-Identifier: Apache-2.0
"""The guidance losses: each a small function of rendered and seen images or of surfaces, unweighted."""

from __future__ import annotations

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import central_differences
from fmh_ros.core.fields.pose import TorchPose
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.fields.render import soft_silhouette

#: Residual, as a share of the body's size, beyond which depth counts linearly.
DEPTH_KNEE = 0.02
#: Depth residual that a seen pixel without a rendered surface counts as, share of the body's size.
DEPTH_MISSING = 0.3
#: How far before and behind a measured point the field is asked too, and what it should be there at least, in units of
#: the body's size.
SURFACE_STEP, SURFACE_BEFORE, SURFACE_BEHIND = 0.03, 0.01, 0.005
#: Residual, as a share of the hand's box, beyond which a keypoint counts linearly.
KEYPOINT_KNEE = 0.03
#: Step of the differences that a fixed field's slope is taken from, over its half size: about a voxel of 64.
SLOPE_STEP = 2.0 / 63.0


def pseudo_huber(residual: Tensor, knee: float) -> Tensor:
    """Quadratic near zero, absolute value minus ``knee`` far out."""
    return knee * (torch.sqrt(1.0 + (residual / knee) ** 2) - 1.0)


def normal_loss(rendered: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean of 1 - cos over the pixels ``where`` (S, S) bool at which both (S, S, 3) unit maps are defined."""
    defined = where & ~rendered.detach()[..., 0].isnan() & ~target[..., 0].isnan()
    cosine = (rendered[defined] * target[defined]).sum(-1)
    return (1.0 - cosine).sum() / defined.sum().clamp_min(1)


def depth_loss(rendered: Tensor, target: Tensor, known: Tensor, size: float, sigma: float) -> Tensor:
    """Robust metric depth error over ``known`` pixels (S, S), in units of ``size`` metres.

    sigma : relative deviation of the target's scale: a common offset of up to sigma times the distance is free, so
    that an uncertain scale does not overrule the hand's. Known pixels without a rendered surface count as
    DEPTH_MISSING, so that losing them never pays.
    """
    hit = known & ~rendered.detach().isnan()
    count = known.sum().clamp_min(1)
    residual = rendered[hit] - target[hit]
    if sigma > 0 and residual.numel():
        free = sigma * target[hit].mean()
        residual = residual - residual.detach().median().clamp(-free, free)
    missing = (known.sum() - hit.sum()) * (DEPTH_MISSING - DEPTH_KNEE)
    return (pseudo_huber(residual / size, DEPTH_KNEE).sum() + missing) / count


def surface_loss(points: Tensor, field: ImplicitField, T_camera_field: TorchPose, size: float) -> Tensor:
    """Robust mean distance of measured points (N, 3), camera frame, from the surface, in units of ``size`` metres.

    What lies SURFACE_STEP nearer to the camera has to be empty and what lies so much farther away full. A render says
    nothing of a surface that it does not meet; the field has a value, and a gradient, at every measured point.
    """
    step, depth = SURFACE_STEP * size, points[:, 2:]
    moved = torch.cat([points, points * (1.0 - step / depth), points * (1.0 + step / depth)])
    value = field.query(T_camera_field.apply_inverse(moved)) * T_camera_field.scale / size
    on, before, behind = value.chunk(3)
    sides = torch.relu(SURFACE_BEFORE - before).mean() + torch.relu(SURFACE_BEHIND + behind).mean()
    return pseudo_huber(on, DEPTH_KNEE).mean() + sides


def disparity_loss(rendered: Tensor, target: Tensor, known: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error of inverse depth over ``known`` pixels, in units of the range of the target over ``valid``
    pixels (the published loss, with one range for both)."""
    hit = known & ~rendered.detach().isnan()
    seen = 1.0 / target[valid]
    span = (seen.max() - seen.min()).clamp_min(1e-3)
    residual = (1.0 / rendered[hit] - 1.0 / target[hit]).abs() / span
    return (residual.sum() + (known.sum() - hit.sum())) / known.sum().clamp_min(1)


def silhouette_loss(
    silhouette: Tensor, signed_px: Tensor, visible: Tensor, dont_care: Tensor, softness_px: float, saturation: float
) -> Tensor:
    """Cross entropy to the softened outline, less its own minimum, per visible pixel.

    silhouette : rendered, (S, S) 0 to 1; softness_px : its softness in pixels, so that a perfect render has the
    target's own profile and thin parts are not thickened. Well inside the outline a ray that is half a softness deep
    is covered: a flat body facing the camera is not made thicker.
    """
    target = soft_silhouette(signed_px, softness_px, saturation)
    inside = visible & (signed_px < -2.0 * softness_px) & (silhouette.detach() > 0.62)
    use = ~dont_care & ~inside
    p, q = silhouette[use].clamp(1e-4, 1.0 - 1e-4), target[use].clamp(1e-4, 1.0 - 1e-4)
    divergence = q * (q.log() - p.log()) + (1.0 - q) * ((1.0 - q).log() - (1.0 - p).log())
    return divergence.sum() / visible.sum().clamp_min(1)


def hard_silhouette_loss(silhouette: Tensor, visible: Tensor, dont_care: Tensor) -> Tensor:
    """Mean binary cross entropy to the mask over the pixels that count (the published loss)."""
    use = ~dont_care
    p = silhouette[use].clamp(1e-4, 1.0 - 1e-4)
    return torch.nn.functional.binary_cross_entropy(p, visible[use].to(p.dtype))


def keypoint_loss(keypoints: Tensor, K: Tensor, target_px: Tensor, hand_px: float) -> Tensor:
    """Robust mean reprojection error of (21, 3) camera-frame points, in units of the hand's box."""
    projected = keypoints @ K.T
    error = projected[:, :2] / projected[:, 2:] - target_px
    squared = (error**2).sum(-1) / hand_px**2
    return (KEYPOINT_KNEE * (torch.sqrt(1.0 + squared / KEYPOINT_KNEE**2) - 1.0)).mean()


def squared_keypoint_loss(keypoints: Tensor, K: Tensor, target_px: Tensor, size: int) -> Tensor:
    """Mean squared reprojection error in pixels of a 512 px crop (the published loss)."""
    projected = keypoints @ K.T
    error = (projected[:, :2] / projected[:, 2:] - target_px) * (512.0 / size)
    return (error**2).mean()


def penetration(
    points: Tensor, weights: Tensor, field: ImplicitField, T_camera_field: TorchPose, on_shape: float = 1.0
) -> Tensor:
    """Mean depth in metres of camera-frame points (N, 3), weighted (N,) to sum 1, inside a field's body.

    The gradient moves the points and the field's pose in full, and what made the field's values by ``on_shape`` of it.
    """
    where = T_camera_field.apply_inverse(points)
    value = field.query(where)
    inside = value.detach() < 0
    if not inside.any():
        return points.new_zeros(())
    where, value, weights = where[inside], value[inside], weights[inside]
    if on_shape < 1:
        step = SLOPE_STEP * field.bounds
        with torch.no_grad():
            slope = central_differences(field.query, where, step) / (2.0 * step)
        along = ((where - where.detach()) * slope).sum(-1)  # zero, with the slope for a gradient
        value = on_shape * value + (1.0 - on_shape) * (value.detach() + along)
    return (weights * -value).sum() * T_camera_field.scale


def gap(
    vertices: Tensor, surface: Tensor, groups: tuple[Tensor, ...], margin: float, reach: float, share: float
) -> Tensor:
    """Mean distance in metres, beyond ``margin``, of the hand's contact groups to the object.

    vertices : (V, 3) and surface : (N, 3), camera frame, both moved by the gradient; groups : vertex indices of each
    group that may touch. Of each group the nearest ``share`` counts. A group farther than ``reach`` is not holding the
    object and is left out, unless it is one of the two nearest: something has to hold it.
    """
    with torch.no_grad():
        nearest = torch.cdist(vertices, surface).argmin(-1)
    distance = torch.linalg.vector_norm(vertices - surface[nearest], dim=-1)
    gaps = []
    for group in groups:
        count = max(round(share * len(group)), 4)
        gaps.append(distance[group].topk(min(count, len(group)), largest=False).values.mean())
    stacked = torch.stack(gaps)
    second = stacked.detach().sort().values[min(1, len(gaps) - 1)]
    holding = stacked.detach() <= second.clamp_min(reach)
    return torch.relu(stacked[holding] - margin).mean()


def ordering(
    hand_depth: Tensor, object_depth: Tensor, hand_visible: Tensor, object_visible: Tensor, slack: float
) -> Tensor:
    """Mean metres by which the wrong body is in front, beyond ``slack``, over the pixels (S, S) where one is seen and
    both are rendered."""
    both = ~hand_depth.detach().isnan() & ~object_depth.detach().isnan()
    behind = hand_depth - object_depth
    hand_first, object_first = both & hand_visible, both & object_visible
    wrong = torch.relu(behind[hand_first] - slack).sum() + torch.relu(-behind[object_first] - slack).sum()
    return wrong / (hand_first | object_first).sum().clamp_min(1)
