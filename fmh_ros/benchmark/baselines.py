# SPDX-License-Identifier: Apache-2.0
"""Baselines that do something to a finished reconstruction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.cues.point_map import remove_flying_pixels
from fmh_ros.core.errors import RegistrationError
from fmh_ros.core.reconstruction.contacts import find_contacts
from fmh_ros.core.reconstruction.quality import measure_quality
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.registration.register import align_to_points

#: Fewer visible points than this register nothing.
FEWEST_POINTS = 30


def visible_points(result: Reconstruction) -> NDArray[np.float64]:
    """Return the seen points (N, 3) of the object, metres, camera frame. Raises RegistrationError without depth."""
    frame = result.frame
    depth = None if frame.depth is None else remove_flying_pixels(frame.depth)
    known = np.zeros(result.masks.object.shape, bool) if depth is None else np.isfinite(depth) & result.masks.object
    if depth is None or known.sum() < FEWEST_POINTS:
        raise RegistrationError(
            f"{int(known.sum())} pixels of the object have depth",
            expected=f"at least {FEWEST_POINTS}: this baseline registers the shape to them",
            change="Use scenes and cues with depth",
        )
    return np.asarray((frame.camera.rays(frame.camera.pixel_grid()) * depth[..., None])[known], np.float64)


def registered(result: Reconstruction) -> Reconstruction:
    """Return the same hand and shape, with the object registered to its visible points by ICP, pose and scale.

    Contacts and quality are measured again. Raises RegistrationError when there is no depth.
    """
    obj = result.object
    shape = trimesh.Trimesh(obj.vertices, obj.faces, process=False)
    pose = align_to_points(shape, visible_points(result), obj.T_camera_object)
    growth = pose.scale
    obj = replace(
        obj,
        T_camera_object=pose.rigid(),
        vertices=obj.vertices * growth,
        extents_m=obj.extents_m * growth,
        volume_m3=obj.volume_m3 * growth**3,
    )
    contacts = find_contacts(obj, result.hand)
    quality = measure_quality(result.frame, result.observation, result.masks, result.hand, obj, contacts)
    return replace(result, object=obj, contacts=contacts, quality=quality)
