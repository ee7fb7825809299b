# SPDX-License-Identifier: Apache-2.0
"""The weighted losses of each phase as functions of the two poses and the object's field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fmh_ros.core.fields.dense import DenseMesh, dense_values, extract_mesh
from fmh_ros.core.fields.dense_pytorch3d import rasterise_mesh
from fmh_ros.core.fields.dense_render import render_mesh
from fmh_ros.core.fields.mesh import MeshField
from fmh_ros.core.fields.pose import PoseParameters, TorchPose, torch_pose
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted, render
from fmh_ros.core.fields.surface import surface_points
from fmh_ros.core.guidance import losses
from fmh_ros.core.guidance.config import BodyWeights, GuidanceConfig, PairWeights, PhaseConfig
from fmh_ros.core.guidance.supervision import Supervision, Target
from fmh_ros.core.hand.landmarks import marked_points
from fmh_ros.core.hand.types import FINGERS, HandMesh

Terms = dict[str, Tensor]
#: Samples per axis of the object's field that is traced, and points on its surface for contact.
OBJECT_RESOLUTION = 64
SURFACE_POINTS = 1200
#: Most measured points that are held against its surface.
MEASURED_POINTS = 1500
#: Deviation of the object's log-scale about its registration.
OBJECT_SCALE_SIGMA = 0.1
#: Wrong order of depth up to this many metres is within the accuracy of the hand's shape.
ORDER_SLACK_M = 0.003
#: Share of a finger's or the palm's vertices, the nearest ones, that are to touch: about a pad.
CONTACT_SHARE = 0.1


@dataclass(frozen=True)
class Bodies:
    """What a phase looks at: the poses' parameters, the object's field, and the relative shift () of the clean
    estimate, None where the shape is not steered. The field is None in a phase without the object."""

    hand: PoseParameters
    object: PoseParameters | None
    field: ImplicitField | None
    relative_shift: Tensor | None = None


class Objective:
    """Evaluates a phase's losses; built once per reconstruction."""

    def __init__(self, supervision: Supervision, hand: HandMesh, hand_field: MeshField, config: GuidanceConfig) -> None:
        device = supervision.rays.device

        def tensor(values: object) -> Tensor:
            return torch.as_tensor(np.array(values), dtype=torch.float32, device=device)

        self.supervision = supervision
        self.config = config
        self.hand_field = hand_field
        self.T_hand_field = torch_pose(hand_field.T_mesh_field, device=device)
        self.vertices = tensor(hand.vertices)
        self.keypoints = tensor(marked_points(hand.keypoints, supervision.convention))
        self.vertex_weights = tensor(_vertex_areas(hand))
        self.groups = tuple(group.to(device) for group in _contact_groups(hand, config.contact_vertices))
        self.hand_scale_sigma = max(hand.scale_sigma, 1e-3)
        self.hand_size = float(np.ptp(hand.vertices, axis=0).max())
        self.K = tensor(supervision.camera.K)
        measured = supervision.depth is not None and bool(supervision.object.known.any())
        self.proximity_share = config.proximity_with_depth if measured else 1.0
        self.pose_prior = config.pose_prior_with_depth if measured else 1.0
        self.measured = _measured_points(supervision)

    def terms(self, phase: PhaseConfig, bodies: Bodies) -> Terms:
        """Return the weighted terms, scalars; their sum is the phase's loss. Absent terms have no weight or no data."""
        T_hand = bodies.hand.pose()
        seen = self.supervision
        hand_image = object_image = None
        pair = phase.pair
        both = pair.ordering > 0 or phase.union is not None
        if _looks(phase.hand) or both:
            T_field = T_hand.compose(self.T_hand_field)
            settings = self._settings(self.hand_field.resolution)
            wanted = self._wanted(seen.hand, phase, phase.hand)
            hand_image = render(self.hand_field.field, T_field, seen.rays, settings, wanted)
        terms: Terms = {}
        if bodies.field is not None and bodies.object is not None:
            T_object = bodies.object.pose()
            wanted = self._wanted(seen.object, phase, phase.object)
            object_image, mesh = self._object_image(bodies.field, T_object, wanted)
            softness = self._softness_px(T_object, bodies.field.bounds, OBJECT_RESOLUTION)
            size = float(bodies.object.initial.scale)
            terms |= self._image_terms("object", phase.object, object_image, seen.object, size, softness)
            if phase.object.surface > 0 and self.measured is not None:
                distance = losses.surface_loss(self.measured, bodies.field, T_object, size)
                terms["object_surface"] = phase.object.surface * distance
            terms |= _pose_terms("object", phase.object, bodies.object, size, OBJECT_SCALE_SIGMA, self.pose_prior)
            terms |= self._pair_terms(pair, T_hand, T_object, bodies.field, mesh)
            if pair.ordering > 0 and hand_image is not None:
                order = (hand_image.depth, object_image.depth, seen.hand.visible, seen.object.visible)
                terms["ordering"] = pair.ordering / size * losses.ordering(*order, ORDER_SLACK_M)
            if phase.union is not None and hand_image is not None:
                terms |= self._union_terms(phase.union, hand_image, object_image, size)
        if hand_image is not None and _looks(phase.hand):
            softness = self._softness_px(T_hand, self.hand_field.field.bounds, self.hand_field.resolution)
            terms |= self._image_terms("hand", phase.hand, hand_image, seen.hand, self.hand_size, softness)
        terms |= self._keypoint_terms(phase.hand, T_hand)
        terms |= _pose_terms("hand", phase.hand, bodies.hand, self.hand_size, self.hand_scale_sigma)
        if bodies.relative_shift is not None and pair.velocity > 0:
            terms["velocity"] = pair.velocity * bodies.relative_shift**2
        return terms

    def _object_image(
        self, field: ImplicitField, T_object: TorchPose, wanted: Wanted
    ) -> tuple[RenderedField, DenseMesh | None]:
        """Render the object by the route of the config, and return its mesh where the route makes one."""
        rays, settings = self.supervision.rays, self._settings(OBJECT_RESOLUTION)
        if self.config.object_surface == "implicit":
            return render(field, T_object, rays, settings, wanted), None
        mesh = extract_mesh(dense_values(field, device=rays.device), field.bounds)
        draw = rasterise_mesh if self.config.object_surface == "dense_mesh_pytorch3d" else render_mesh
        return draw(mesh, field.bounds, T_object, rays, settings, wanted), mesh

    def _settings(self, resolution: int) -> RenderSettings:
        return RenderSettings(resolution, self.config.softness_voxels)

    def _softness_px(self, pose: TorchPose, bounds: float, resolution: int) -> float:
        """Width of the silhouette's sigmoid in pixels at the body's distance."""
        metres = self.config.softness_voxels * 2.0 * bounds / (resolution - 1) * float(pose.scale.detach())
        distance = max(float(pose.translation.detach()[2]), 1e-3)
        return metres * self.supervision.camera.focal / distance

    def _wanted(self, target: Target, phase: PhaseConfig, weights: BodyWeights) -> Wanted:
        """The pixels whose values some weighted term reads."""
        seen = self.supervision
        nothing = torch.zeros_like(target.visible)
        depth = target.known if weights.depth > 0 else nothing
        normals = nothing
        if weights.normal > 0 and seen.normals is not None:
            normals = target.visible
        contour = ~target.dont_care if weights.silhouette > 0 else nothing
        surface = depth | normals
        either = seen.hand.visible | seen.object.visible
        if phase.pair.ordering > 0:
            surface = surface | either
        if phase.union is not None:
            surface = surface | either
            normals = normals | either if seen.normals is not None else normals
            contour = torch.ones_like(contour)
        return Wanted(surface, normals, contour)

    def _image_terms(
        self, name: str, weights: BodyWeights, image: RenderedField, target: Target, size: float, softness_px: float
    ) -> Terms:
        seen = self.supervision
        terms: Terms = {}
        if weights.silhouette > 0 and bool(target.visible.any()):
            terms[f"{name}_silhouette"] = weights.silhouette * self._silhouette(image.silhouette, target, softness_px)
        if weights.depth > 0 and seen.depth is not None and bool(target.known.any()):
            terms[f"{name}_depth"] = weights.depth * self._depth(image.depth, seen.depth, target.known, size)
        if weights.normal > 0 and seen.normals is not None:
            terms[f"{name}_normal"] = weights.normal * losses.normal_loss(image.normals, seen.normals, target.visible)
        return terms

    def _silhouette(self, silhouette: Tensor, target: Target, softness_px: float) -> Tensor:
        if not self.config.soft_target:
            return losses.hard_silhouette_loss(silhouette, target.covered, target.dont_care)
        saturation = RenderSettings().saturation
        return losses.silhouette_loss(
            silhouette, target.signed_px, target.covered, target.dont_care, softness_px, saturation
        )

    def _depth(self, rendered: Tensor, depth: Tensor, known: Tensor, size: float) -> Tensor:
        seen = self.supervision
        if self.config.depth_kind == "disparity":
            return losses.disparity_loss(rendered, depth, known, seen.hand.known | seen.object.known)
        return seen.depth_weight * losses.depth_loss(rendered, depth, known, size, seen.depth_sigma)

    def _union_terms(self, weights: BodyWeights, hand: RenderedField, held: RenderedField, size: float) -> Terms:
        """Compare the scene of both bodies, the nearer one in front, with everything that is seen of either."""
        seen = self.supervision
        far = 1e6
        object_first = held.depth.detach().nan_to_num(far) < hand.depth.detach().nan_to_num(far)
        depth = torch.where(object_first, held.depth, hand.depth)
        normals = torch.where(object_first[..., None], held.normals, hand.normals)
        silhouette = 1.0 - (1.0 - hand.silhouette) * (1.0 - held.silhouette)
        image = RenderedField(depth, normals, silhouette, hand.hit | held.hit)
        visible = seen.hand.visible | seen.object.visible
        # What hides one body is the other, so only what both know nothing about is left out.
        dont_care = seen.hand.dont_care & seen.object.dont_care & ~visible
        signed = torch.minimum(seen.hand.signed_px, seen.object.signed_px)
        target = Target(visible, visible, dont_care, signed, seen.hand.known | seen.object.known)
        return self._image_terms("union", weights, image, target, size, 1.0)

    def _keypoint_terms(self, weights: BodyWeights, T_hand: TorchPose) -> Terms:
        if weights.keypoints <= 0:
            return {}
        seen, points = self.supervision, T_hand.apply(self.keypoints)
        if self.config.keypoint_kind == "robust":
            value = losses.keypoint_loss(points, self.K, seen.keypoints_2d, seen.hand_px)
        else:
            value = losses.squared_keypoint_loss(points, self.K, seen.keypoints_2d, seen.camera.width)
        return {"keypoints": weights.keypoints * value}

    def _pair_terms(
        self,
        weights: PairWeights,
        T_hand: TorchPose,
        T_object: TorchPose,
        field: ImplicitField,
        mesh: DenseMesh | None,
    ) -> Terms:
        """Intersection both ways and proximity, in centimetres times their weights."""
        terms: Terms = {}
        if weights.intersection <= 0 and weights.proximity <= 0:
            return terms
        vertices = T_hand.apply(self.vertices)
        if mesh is None:
            surface = surface_points(field, OBJECT_RESOLUTION, SURFACE_POINTS)
        else:
            surface = mesh.vertices[:: max(-(-len(mesh.vertices) // SURFACE_POINTS), 1)]
        if len(surface) == 0:
            return terms
        if weights.intersection > 0:
            share = self.config.intersection_on_shape
            points = T_object.apply(surface.detach() + share * (surface - surface.detach()))
            even = torch.full_like(surface[:, 0], 1.0 / len(surface))
            depth = losses.penetration(vertices, self.vertex_weights, field, T_object, share)
            T_hand_field = T_hand.compose(self.T_hand_field)
            depth = depth + losses.penetration(points, even, self.hand_field.field, T_hand_field)
            terms["intersection"] = 100.0 * weights.intersection * depth
        if weights.proximity > 0:
            config = self.config
            held_fixed = T_object.apply(surface.detach())
            share = 1.0 if config.contact_vertices == "all" else CONTACT_SHARE
            bounds = (config.margin_m, config.contact_reach_m, share)
            # Contact decides where the bodies stand, not what the object looks like: steered by it, shapes grow
            # bulges towards fingers that do not touch.
            distance = losses.gap(vertices, held_fixed, self.groups, *bounds)
            terms["proximity"] = 100.0 * weights.proximity * self.proximity_share * distance
        return terms


def _measured_points(seen: Supervision) -> Tensor | None:
    """Points (N, 3) of the object, metres, camera frame, that a sensor measured; None without. A depth of uncertain
    scale is left to the depth term, which lets a body shift along it."""
    if seen.depth is None or seen.depth_sigma > 0 or not bool(seen.object.known.any()):
        return None
    points = seen.rays[seen.object.known] * seen.depth[seen.object.known][:, None]
    return points[:: -(-len(points) // MEASURED_POINTS)]


def _looks(weights: BodyWeights) -> bool:
    return max(weights.normal, weights.depth, weights.silhouette) > 0


def _pose_terms(
    name: str, weights: BodyWeights, parameters: PoseParameters, size: float, sigma: float, factor: float = 1.0
) -> Terms:
    """Squared departures from the initial pose, times ``factor``."""
    log_scale, rotation, translation = parameters.leaves()
    terms: Terms = {}
    if weights.translation > 0:
        terms[f"{name}_translation"] = factor * weights.translation * (translation**2).sum() / size**2
    if weights.rotation > 0:
        terms[f"{name}_rotation"] = factor * weights.rotation * (rotation**2).sum()
    if weights.scale > 0:
        terms[f"{name}_scale"] = factor * weights.scale * (log_scale / sigma) ** 2
    return terms


def _vertex_areas(hand: HandMesh) -> np.ndarray:
    """Share (V,) of the surface around each vertex."""
    a, b, c = (hand.vertices[hand.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    shares = np.zeros(len(hand.vertices))
    for k in range(3):
        shares += np.bincount(hand.faces[:, k], area, len(shares))
    return shares / shares.sum()


def _contact_groups(hand: HandMesh, which: str) -> tuple[Tensor, ...]:
    """Vertex indices that may touch: each finger and the palm, or the whole hand as one group."""
    if which == "all":
        return (torch.arange(len(hand.vertices)),)
    groups = (np.nonzero(hand.vertex_finger == k)[0] for k in range(len(FINGERS)))
    return tuple(torch.from_numpy(g) for g in groups if len(g))
