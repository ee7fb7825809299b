# SPDX-License-Identifier: Apache-2.0
"""Where the generator's canonical frame stands in the camera frame before guidance."""

from __future__ import annotations

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import RegistrationError
from fmh_ros.core.flow.protocol import LatentShapeModel
from fmh_ros.core.transforms import Similarity


def canonical_pose(model: LatentShapeModel, view: ObjectView) -> Similarity:
    """Return T_camera_canonical for a generator that knows its frame from the view.

    A generator with a canonical frame of its own needs a first unguided shape and ``register``; the profile that
    brings such a generator supplies it. Raises RegistrationError when the model does not know its frame.
    """
    pose = model.canonical_to_view(view)
    if pose is None:
        raise RegistrationError(
            f"The generator {model.name} does not generate in the view's frame",
            expected="a generator that does",
            change="Use --profile embedded",
        )
    return pose
