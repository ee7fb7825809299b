# SPDX-License-Identifier: Apache-2.0
"""Depth, normals and soft silhouettes of a differentiable mesh: the published method's route, beside ``render``'s.

Which triangle a ray hits and which edges are the outline is found without gradient; depth, normals and the distance to
the outline are then functions of the vertices. Images mean what ``render``'s do, so that both routes compare under the
same losses: silhouettes are as soft, in space and not in pixels.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.fields.dense import DENSE_RESOLUTION, DenseMesh, dense_values, extract_mesh
from fmh_ros.core.fields.mesh_queries import cast_rays
from fmh_ros.core.fields.pose import TorchPose
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted, soft_silhouette
from fmh_ros.core.fields.warp_runtime import start_warp

#: Beside the middle of an edge, how far away a ray looks whether there is something, in pixels.
_BESIDE_PX = 0.005
#: Pairs of a pixel and an edge that are compared at a time.
_PAIRS = 2_000_000
#: Cosine of the flattest view of a triangle; what is flatter has no gradient of its own size.
_GRAZING = 0.02


def render_dense(
    field: ImplicitField,
    T_camera_field: TorchPose,
    rays: Tensor,
    settings: RenderSettings | None = None,
    wanted: Wanted | None = None,
    resolution: int = DENSE_RESOLUTION,
) -> RenderedField:
    """Mesh a field on a grid of ``resolution`` samples per axis and render it, as ``render`` renders the field."""
    mesh = extract_mesh(dense_values(field, resolution, rays.device), field.bounds)
    return render_mesh(mesh, field.bounds, T_camera_field, rays, settings, wanted)


def render_mesh(
    mesh: DenseMesh,
    bounds: float,
    T_camera_field: TorchPose,
    rays: Tensor,
    settings: RenderSettings | None = None,
    wanted: Wanted | None = None,
) -> RenderedField:
    """Render a mesh seen along ``rays`` (H, W, 3), which have z = 1 in the camera frame.

    The silhouette's softness is that of a field with these ``bounds`` under the same settings.
    """
    settings = settings or RenderSettings()
    shape, flat = rays.shape[:2], rays.reshape(-1, 3)
    everywhere = torch.ones(flat.shape[:1], dtype=torch.bool, device=rays.device)
    surface, contour = everywhere, everywhere
    if wanted is not None:
        surface, contour = wanted.surface.reshape(-1), wanted.contour.reshape(-1)
    vertices = T_camera_field.apply(mesh.vertices.to(rays.dtype))
    traced = torch.nonzero(surface | contour)[:, 0]
    face = torch.full(flat.shape[:1], -1, device=rays.device)
    face[traced] = first_faces(vertices, mesh.faces, flat[traced])

    at = torch.nonzero((face >= 0) & surface)[:, 0]
    depth_hit, normals_hit = _on_triangles(vertices, mesh.faces, face[at], flat[at])
    depth = rays.new_full(flat.shape[:1], torch.nan).index_put((at,), depth_hit)
    normals = torch.full_like(flat, torch.nan).index_put((at,), normals_hit)

    softness = T_camera_field.scale * settings.softness_voxels * 2.0 * bounds / (settings.resolution - 1)
    limit = settings.saturation * float(softness.detach())
    lowest = rays.new_full(flat.shape[:1], limit)
    lowest[face >= 0] = -limit
    pixel = float((flat[1] - flat[0]).norm()) if len(flat) > 1 else 1e-3
    outline = outer_edges(vertices, mesh.faces, pixel)
    rim = torch.nonzero(contour)[:, 0]
    near, distance = _outline_distance(vertices, outline, flat[rim], limit)
    sign = torch.where(face[rim[near]] >= 0, -1.0, 1.0).to(distance)
    lowest = lowest.index_put((rim[near],), sign * distance)
    silhouette = soft_silhouette(lowest, softness, settings.saturation)
    silhouette = torch.where(contour | (face >= 0), silhouette, torch.zeros_like(silhouette))
    hit = (face >= 0) & surface
    return RenderedField(depth.view(shape), normals.view(*shape, 3), silhouette.view(shape), hit.view(shape))


@torch.no_grad()
def first_faces(vertices: Tensor, faces: Tensor, directions: Tensor) -> Tensor:
    """Index (N,) of the triangle that each ray from the origin along ``directions`` (N, 3) hits first, -1 for none."""
    if len(faces) == 0 or len(directions) == 0:
        return torch.full(directions.shape[:1], -1, device=directions.device)
    start_warp()
    place = directions.device
    device = "cpu" if place.type == "cpu" else f"cuda:{place.index or 0}"
    stream = wp.stream_from_torch(torch.cuda.current_stream(place)) if device != "cpu" else None
    # Kept in names as long as Warp works with their memory.
    points, corners = vertices.detach().float().contiguous(), faces.to(torch.int32).contiguous().view(-1)
    unit = F.normalize(directions.detach().float(), dim=-1)
    origins, count = torch.zeros_like(unit), len(unit)
    distance, face = torch.zeros(count, device=place), torch.empty(count, dtype=torch.int32, device=place)
    weights = torch.zeros(count, 2, device=place)
    with wp.ScopedStream(stream) if stream is not None else wp.ScopedDevice(device):
        mesh = wp.Mesh(points=wp.from_torch(points, dtype=wp.vec3), indices=wp.from_torch(corners))
        vectors = [wp.from_torch(each, dtype=wp.vec3) for each in (origins, unit)]
        outputs = [wp.from_torch(distance), wp.from_torch(face), wp.from_torch(weights, dtype=wp.vec2)]
        wp.launch(cast_rays, dim=count, inputs=[mesh.id, *vectors, 1.0e6, *outputs], device=device)
    return face.long()


def _on_triangles(vertices: Tensor, faces: Tensor, face: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (N,) and interpolated unit normal (N, 3) where rays with z = 1 meet the planes of their triangles."""
    corner = vertices[faces]
    whole = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    a, b, c = corner[face].unbind(1)
    normal = F.normalize(whole[face], dim=-1, eps=1e-12)
    facing = (normal * directions).sum(-1)
    length = torch.linalg.vector_norm(directions, dim=-1)
    depth = (a * normal).sum(-1) / torch.minimum(facing, -_GRAZING * length)
    # Nothing of the bound may move the surface: where it acts, the depth keeps its value.
    depth = depth + ((a * normal).sum(-1) / facing - depth).detach()
    where = depth[:, None] * directions
    weights = torch.stack([torch.linalg.cross(p - where, q - where) for p, q in ((b, c), (c, a), (a, b))], 1)
    weights = (weights * normal[:, None]).sum(-1, keepdim=True)
    normals = (vertex_normals(vertices, faces)[faces[face]] * weights).sum(1)
    return depth, F.normalize(normals, dim=-1, eps=1e-12)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (V, 3) of vertices: those of their triangles, weighted by area."""
    corner = vertices[faces]
    whole = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    smooth = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), whole.repeat_interleave(3, 0))
    return F.normalize(smooth, dim=-1, eps=1e-12)


@torch.no_grad()
def outer_edges(vertices: Tensor, faces: Tensor, pixel: float) -> Tensor:
    """The edges (E, 2) of a mesh that its outline in the image consists of, holes included.

    vertices : (V, 3), camera frame; pixel : size of a pixel on the plane z = 1. These are the edges between a triangle
    that faces the camera and one that does not, with nothing of the mesh on one side of them in the image.
    """
    if len(faces) == 0:
        return faces.new_zeros(0, 2)
    corner = vertices[faces]
    normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    front = ((normal * corner[:, 0]).sum(-1) < 0).long()
    halves = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(-1).values
    key = halves[:, 0] * len(vertices) + halves[:, 1]
    edge, which = torch.unique(key, return_inverse=True)
    count = torch.bincount(which, minlength=len(edge))
    seen = torch.zeros_like(edge).index_add(0, which, front.repeat(3))
    turning = edge[((seen > 0) & (seen < count)) | (count == 1)]
    ends = torch.stack([turning // len(vertices), turning % len(vertices)], -1)
    a, b = (vertices[ends[:, k]] for k in (0, 1))
    middle = 0.5 * (a + b)
    middle = middle / middle[:, 2:]
    along = (b / b[:, 2:] - a / a[:, 2:])[:, :2]
    across = F.normalize(torch.stack([-along[:, 1], along[:, 0], torch.zeros_like(along[:, 0])], -1), dim=-1)
    beside = _BESIDE_PX * pixel * across
    free = first_faces(vertices, faces, torch.cat([middle + beside, middle - beside])).view(2, -1) < 0
    return ends[free.any(0)]


def _outline_distance(vertices: Tensor, edges: Tensor, directions: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Distance between rays and the nearest outline edge, for the rays nearer than ``limit``: indices (M,) of these
    among ``directions`` (N, 3), and distances (M,), differentiable to the vertices."""
    if len(edges) == 0 or len(directions) == 0:
        return torch.zeros(0, dtype=torch.long, device=directions.device), directions.new_zeros(0)
    with torch.no_grad():
        # Candidates first: a ray near an edge is near its middle.
        a, b = vertices[edges[:, 0]], vertices[edges[:, 1]]
        middle, reach = 0.5 * (a + b), limit + 0.5 * torch.linalg.vector_norm(a - b, dim=-1).max()
        away = torch.cdist(directions[:, :2], middle[:, :2] / middle[:, 2:]).amin(-1)
        candidate = torch.nonzero(away * middle[:, 2].amin() < 2.0 * reach)[:, 0]
        nearest, within = [], []
        for part in candidate.split(max(_PAIRS // len(edges), 1)):
            distance = _ray_to_segment(directions[part][:, None], a[None], b[None])
            best = distance.min(-1)
            nearest.append(best.indices)
            within.append(best.values < limit)
        if not nearest:
            return candidate, directions.new_zeros(0)
        keep = torch.cat(within)
        chosen, edge = candidate[keep], edges[torch.cat(nearest)[keep]]
    return chosen, _ray_to_segment(directions[chosen], vertices[edge[:, 0]], vertices[edge[:, 1]])


def _ray_to_segment(directions: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance (...) between the lines through the origin along (..., 3) and the segments a to b (..., 3)."""
    unit = F.normalize(directions, dim=-1)
    a, b = (end - (end * unit).sum(-1, keepdim=True) * unit for end in (a, b))
    along = b - a
    share = (-(a * along).sum(-1, keepdim=True) / (along**2).sum(-1, keepdim=True).clamp_min(1e-20)).clamp(0, 1)
    return torch.sqrt(((a + share * along) ** 2).sum(-1) + 1e-18)
