# SPDX-License-Identifier: Apache-2.0
"""From the generator's implicit field to one closed mesh in its own object frame."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from fmh_ros.core.errors import EmptyShapeError
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.progress import PreviewMesh
from fmh_ros.core.reconstruction.bodies import Sight, join_bodies
from fmh_ros.core.reconstruction.types import ObjectMesh
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]

#: Grid points a side, where neither the field nor the caller asks for another number.
RESOLUTION = 128
#: Largest number of triangles of a result: enough for a millimetre or two on a hand-sized object.
MAX_FACES = 40_000
#: A body of fewer cells than this is noise.
MIN_CELLS = 27.0
#: Smoothing may change the volume by this share and move a vertex by this many cells; otherwise it is left out.
MAX_VOLUME_CHANGE = 0.01
MAX_SHIFT_CELLS = 0.75


def field_to_mesh(
    field: ImplicitField, T_camera_field: Similarity, resolution: int | None = None, sight: Sight | None = None
) -> ObjectMesh:
    """Mesh the zero level of ``field`` and give it an object frame.

    T_camera_field : pose and scale (metres per field unit) of the field's cube in the camera optical frame.
    resolution : grid points a side, None for the field's own ``mesh_resolution`` or else RESOLUTION. A surface that
        would have more than MAX_FACES triangles is simplified to that many when the field asks for a finer grid than
        RESOLUTION and fast-simplification is installed; otherwise fewer grid points are used.

    sight : what the image shows; with it, pieces whose connection the hand hides are joined.

    The result is one closed body with outward winding: loose parts and inner cavities are dropped, and a surface that
    leaves the cube is closed at its wall. Raises EmptyShapeError when the field has no surface.
    """
    wanted = resolution or int(getattr(field, "mesh_resolution", RESOLUTION))
    body, cell = _largest_body(field, T_camera_field, wanted, sight)
    simpler = None
    if len(body.faces) > MAX_FACES and wanted > RESOLUTION:
        simpler = simplified(smooth_without_shrinking(body, cell), MAX_FACES)
    if simpler is None:
        if len(body.faces) > MAX_FACES:
            coarser = int(wanted * np.sqrt(MAX_FACES / len(body.faces)) * 0.98)
            body, cell = _largest_body(field, T_camera_field, coarser, sight)
        simpler = smooth_without_shrinking(body, cell)
    return place_in_object_frame(
        T_camera_field.apply(np.asarray(simpler.vertices)), np.asarray(simpler.faces, np.int64)
    )


def preview_mesh(field: ImplicitField, T_camera_field: Similarity, resolution: int = 32) -> PreviewMesh | None:
    """Mesh the zero level of ``field`` quickly, for people to look at; None when it has no surface."""
    values = field.grid(resolution).detach().cpu().float().numpy()
    if not (np.isfinite(values).all() and values.min() < 0 < values.max()):
        return None
    cell = 2.0 * field.bounds / (resolution - 1)
    points, faces, _, _ = marching_cubes(np.pad(values, 1, constant_values=cell), 0.0, spacing=(cell,) * 3)
    vertices = T_camera_field.apply(points - (field.bounds + cell))
    return PreviewMesh(vertices.astype(np.float32), np.ascontiguousarray(faces, np.int32))


def place_in_object_frame(vertices: FloatArray, faces: NDArray[np.int64]) -> ObjectMesh:
    """Move a closed mesh from the camera frame to its oriented bounding box.

    vertices : (V, 3) metres, camera optical frame; faces : (F, 3), outward winding. The axes are sorted by length,
    longest first; x and z point to where their largest camera component is positive, and y completes the right hand.
    """
    rotation, centre, extents = oriented_box(vertices, faces)
    T_camera_object = Similarity(rotation, centre)
    local = T_camera_object.inverse().apply(vertices)
    mesh = trimesh.Trimesh(local, faces, process=False)
    return ObjectMesh(T_camera_object, local, faces, extents, float(mesh.volume), bool(mesh.is_watertight))


def oriented_box(vertices: FloatArray, faces: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rotation (3, 3) whose columns are the box axes, centre (3,) and side lengths (3,), longest first."""
    to_box, sides = trimesh.bounds.oriented_bounds(trimesh.Trimesh(vertices, faces, process=False))
    T_camera_box = np.linalg.inv(to_box)
    # Rounded to a tenth of a millimetre: equal sides keep the order of their axes whatever the rounding errors.
    order = np.argsort(-np.round(sides, 4), kind="stable")
    rotation = object_axes(T_camera_box[:3, :3][:, order])
    # The box is measured again in these very axes, so that mesh, pose and sides agree to the last digit.
    local = vertices @ rotation
    low, high = local.min(0), local.max(0)
    return rotation, rotation @ ((low + high) / 2), high - low


def object_axes(axes: FloatArray) -> FloatArray:
    """Choose the signs of orthonormal axes (3, 3), columns, by the rule of ``place_in_object_frame``."""
    x, z = (_pointed_forward(axes[:, column]) for column in (0, 2))
    return np.stack([x, np.cross(z, x), z], -1)


def smooth_without_shrinking(body: trimesh.Trimesh, cell: float) -> trimesh.Trimesh:
    """Take the stairs of the grid off a surface with Taubin's filter; ``cell`` is the grid's spacing.

    Returns the mesh as it was when smoothing would change its volume or move its surface noticeably.
    """
    smooth = body.copy()
    trimesh.smoothing.filter_taubin(smooth, lamb=0.5, nu=0.53, iterations=6)
    shift = np.linalg.norm(smooth.vertices - body.vertices, axis=1).max()
    change = abs(smooth.volume / body.volume - 1.0)
    kept = np.isfinite(shift) and shift <= MAX_SHIFT_CELLS * cell and change <= MAX_VOLUME_CHANGE
    return smooth if kept else body


def simplified(body: trimesh.Trimesh, faces: int) -> trimesh.Trimesh | None:
    """Collapse edges until so many faces are left, by quadric error; None when that would not leave the same closed
    body, or the library for it is not installed."""
    try:
        import fast_simplification
    except ImportError:
        return None
    points, triangles = fast_simplification.simplify(
        np.asarray(body.vertices, np.float64), np.asarray(body.faces, np.int64), target_count=faces
    )
    simpler = trimesh.Trimesh(points, triangles, process=True)
    whole = simpler.is_watertight and simpler.is_winding_consistent and simpler.body_count == 1
    return simpler if whole and abs(simpler.volume / body.volume - 1.0) <= MAX_VOLUME_CHANGE else None


def _largest_body(
    field: ImplicitField, T_camera_field: Similarity, resolution: int, sight: Sight | None
) -> tuple[trimesh.Trimesh, float]:
    """Return the outer surface of the largest body in field units, and the grid's spacing."""
    values = field.grid(resolution).detach().cpu().float().numpy()
    cell = 2.0 * field.bounds / (resolution - 1)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(values).all() and low < 0 < high):
        raise EmptyShapeError(
            f"The generated field has values from {low:.3g} to {high:.3g}, so it has no surface",
            expected="negative values inside the object and positive ones around it",
            change="Try another seed, or point at the object with --object-box or --object-mask",
        )
    if sight is not None:
        values = join_bodies(values, field.bounds, T_camera_field, sight)
    # A vertex exactly on a grid point would belong to several degenerate triangles.
    tiny = 1e-4 * cell
    values = np.where(np.abs(values) < tiny, np.float32(tiny), values)
    padded = np.pad(values, 1, constant_values=cell)
    points, faces, _, _ = marching_cubes(padded, 0.0, spacing=(cell,) * 3)
    surface = trimesh.Trimesh(points.astype(np.float64) - (field.bounds + cell), faces, process=True)
    # Cavities come out with negative volume, so the largest one is an outer surface.
    bodies = surface.split(only_watertight=True)
    body = max(bodies, key=lambda part: part.volume, default=None)
    if body is None or body.volume < MIN_CELLS * cell**3:
        raise EmptyShapeError(
            "The generated field has only specks of surface",
            expected=f"a body of at least {MIN_CELLS:.0f} grid cells",
            change="Try another seed, or point at the object with --object-box or --object-mask",
        )
    return body, cell


def _pointed_forward(axis: FloatArray) -> FloatArray:
    """Return the axis or its opposite, with its largest component positive."""
    result: FloatArray = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return result
