# SPDX-License-Identifier: Apache-2.0
"""Where the generator's canonical frame stands in the camera frame before guidance."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import RegistrationError
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.flow.protocol import LatentShapeModel
from fmh_ros.core.flow.sampler import euler_step, initial_noise, schedule
from fmh_ros.core.registration.register import register
from fmh_ros.core.transforms import Similarity

#: Flow steps of the shape that is only made to be registered, and the grid it is meshed on.
PREVIEW_STEPS = 12
PREVIEW_GRID = 48


def canonical_pose(model: LatentShapeModel, condition: Any, view: ObjectView, seed: int) -> Similarity:
    """Return T_camera_canonical.

    A generator that works in the view's frame says so itself. For one with a canonical frame of its own, a first
    unguided shape is registered to the seen surface. Raises RegistrationError when that cannot be done.
    """
    known = model.canonical_to_view(view)
    if known is not None:
        return known
    shape = _mesh(preview(model, condition, seed))
    found = register(shape, view, seed=seed)
    # The virtual camera of the view shares its centre with the real one.
    return Similarity(view.T_camera_view.rotation) @ found.T_view_canonical


def preview(model: LatentShapeModel, condition: Any, seed: int) -> ImplicitField:
    """Sample the flow once, coarsely and without guidance."""
    x = initial_noise(model.latent_shape, torch.Generator().manual_seed(seed), model.temperature)
    levels = schedule(model, PREVIEW_STEPS)
    with torch.no_grad():
        for now, after in pairwise(levels):
            velocity = model.velocity(x, now, condition)
            x = euler_step(x, velocity, now, after)
        return model.decode(x)


def _mesh(field: ImplicitField) -> trimesh.Trimesh:
    values = field.grid(PREVIEW_GRID).cpu().numpy()
    if not values.min() < 0 < values.max():
        raise RegistrationError(
            "The first shape of the generator has no surface",
            expected="a shape to register",
            change="Try another --seed",
        )
    cell = 2 * field.bounds / (PREVIEW_GRID - 1)
    vertices, faces, _, _ = marching_cubes(np.pad(values, 1, constant_values=cell), 0.0, spacing=(cell,) * 3)
    return trimesh.Trimesh(vertices - field.bounds - cell, faces)
