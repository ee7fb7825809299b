# SPDX-License-Identifier: Apache-2.0
"""A reconstruction as the message HandObject."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from follow_my_hold.msg import Contact as ContactMsg
from follow_my_hold.msg import ContactArray, HandObject
from follow_my_hold.msg import Hand as HandMsg
from follow_my_hold.msg import Object as ObjectMsg
from follow_my_hold.msg import Provenance as ProvenanceMsg
from follow_my_hold.msg import Quality as QualityMsg
from std_msgs.msg import Header

from fmh_ros.core.hand.types import FINGERS
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.core.reconstruction.types import WEAK_SCORE, Contact, ObjectMesh, Reconstruction
from fmh_ros.messages.basics import flat, to_header, to_point, to_pose, to_vector
from fmh_ros.models.store import ModelStore

CUBIC_METRES_PER_CM3 = 1e-6
#: Endings of files that hold weights.
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pkl", ".npz", ".tflite")
SIDES = {"left": HandMsg.LEFT, "right": HandMsg.RIGHT}


@dataclass(frozen=True)
class Made:
    """What a message says about how its reconstruction came about, beyond what the reconstruction says itself."""

    id: str
    samples: int = 1
    guidance: bool = True
    warnings: tuple[str, ...] = ()


def result_header(result: Reconstruction) -> Header:
    """Stamp and frame of the source image."""
    return to_header(result.frame.frame_id, result.frame.stamp_ns)


def to_hand_object(result: Reconstruction, made: Made) -> HandObject:
    """Return the whole message; its header is that of the source image."""
    return HandObject(
        header=result_header(result),
        id=made.id,
        hand=_hand(result),
        object=_object(result.object),
        contacts=to_contacts(result.contacts),
        quality=_quality(result, made.warnings),
        provenance=_provenance(result, made),
    )


def to_contact_array(result: Reconstruction, made_id: str) -> ContactArray:
    """Return the contacts alone."""
    return ContactArray(header=result_header(result), id=made_id, contacts=to_contacts(result.contacts))


def to_contacts(contacts: tuple[Contact, ...]) -> list[ContactMsg]:
    """Return contact messages ordered by finger, closest first."""
    ordered = sorted(contacts, key=lambda contact: (FINGERS.index(contact.finger), contact.gap_m))
    return [
        ContactMsg(
            finger=FINGERS.index(contact.finger),
            position=to_point(contact.position),
            normal=to_vector(contact.normal),
            gap=float(contact.gap_m),
        )
        for contact in ordered
    ]


def _hand(result: Reconstruction) -> HandMsg:
    hand = result.hand
    pixels = result.frame.to_reported(result.observation.keypoints_2d)
    return HandMsg(
        side=SIDES[hand.side],
        wrist_pose=to_pose(hand.T_camera_hand),
        vertices=flat(hand.vertices, "f"),
        faces=flat(hand.faces, "I"),
        vertex_fingers=flat(hand.vertex_finger, "B"),
        keypoints=np.asarray(hand.keypoints, np.float32).ravel(),
        keypoints_2d=np.asarray(pixels, np.float32).ravel(),
        model=hand_model(result.profile),
        scale=float(hand.scale),
        scale_sigma=float(hand.scale_sigma),
        reprojection_error=float(hand.reprojection_px),
        score=float(hand.score),
    )


def _object(obj: ObjectMesh) -> ObjectMsg:
    return ObjectMsg(
        pose=to_pose(obj.T_camera_object),
        vertices=flat(obj.vertices, "f"),
        faces=flat(obj.faces, "I"),
        extents=to_vector(obj.extents_m),
        volume=float(obj.volume_m3),
        watertight=bool(obj.watertight),
    )


def _quality(result: Reconstruction, warnings: tuple[str, ...]) -> QualityMsg:
    quality = result.quality
    return QualityMsg(
        score=float(quality.score),
        weak=bool(quality.score < WEAK_SCORE),
        hand_silhouette_iou=float(quality.hand_silhouette_iou),
        object_silhouette_iou=float(quality.object_silhouette_iou),
        keypoint_error=float(quality.keypoint_error_px),
        depth_error=float("nan") if quality.depth_error_m is None else float(quality.depth_error_m),
        penetration_volume=float(quality.penetration_cm3) * CUBIC_METRES_PER_CM3,
        contact_fraction=float(quality.contact_fraction),
        scale_sigma=float(result.hand.scale_sigma),
        warnings=[*result.warnings, *warnings],
    )


def _provenance(result: Reconstruction, made: Made) -> ProvenanceMsg:
    camera = result.frame.reported_camera
    models = model_hashes(result.profile)
    return ProvenanceMsg(
        profile=result.profile,
        preset=result.preset,
        seed=int(result.seed),
        samples=int(made.samples),
        guidance=bool(made.guidance),
        camera_estimated=camera.source == "estimated",
        image_width=camera.width,
        image_height=camera.height,
        k=np.asarray(camera.K, np.float64).ravel(),
        model_names=list(models),
        model_hashes=list(models.values()),
        software_names=list(result.versions),
        software_versions=list(result.versions.values()),
        stage_names=list(result.timings_s),
        stage_seconds=flat(list(result.timings_s.values()), "f"),
        phase_names=[phase.name for phase in result.phases],
        phase_iterations=flat([phase.iterations for phase in result.phases], "I"),
        phase_loss_first=flat([_finite(phase.loss_first) for phase in result.phases], "f"),
        phase_loss_last=flat([_finite(phase.loss_last) for phase in result.phases], "f"),
        phase_rolled_back=[bool(phase.rolled_back) for phase in result.phases],
    )


def hand_model(text: str) -> str:
    """Return which hand a profile's meshes are of; networks that give the mesh give that of MANO."""
    stages = load_profile(text).stages
    return stages["hand_model"].backend.name if stages["hand_pose"].backend.name == "fit" else "mano"


def model_hashes(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file of weights by its name: the shipped ones, which every profile uses some of, and
    ``model/file`` of what a profile has besides."""
    lines = (resources.files("fmh_ros") / "assets" / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    found = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    store = ModelStore()
    for model in load_profile(text).models:
        manifest = store.manifest(model)
        files = {} if manifest is None else manifest.files
        found |= {f"{model}/{name}": file.sha256 for name, file in files.items() if name.endswith(WEIGHTS)}
    return found


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("nan")
