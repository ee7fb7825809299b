# SPDX-License-Identifier: Apache-2.0
"""Make the package's hand rig from right.glb of the npm package @webxr-input-profiles/assets (MIT).

npm pack @webxr-input-profiles/assets@1.0.20 && tar xf webxr-input-profiles-assets-1.0.20.tgz
python tools/make_hand_rig.py package/dist/profiles/generic-hand/right.glb fmh_ros/assets/hand/generic_right.npz
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np
import trimesh

from fmh_ros.core.hand.rig import hand_axes, joint_axes, label_fingers

#: Wrist joint to the end of the middle finger of an average adult, metres.
HAND_LENGTH = 0.187
#: Where a fingertip landmark lies between the file's tip joint (0) and the end of the finger (1).
TIP_FRACTION = 0.65
#: The file's fingers are slim: 16.9 mm at the index finger's middle joint, where adults measure 18 to 19 mm.
FINGER_THICKNESS = 1.08
#: Where the landmark network sees the thumb's base: nearer to the wrist than the file's joint. Mean over 26 hands of
#: photos whose palms were aligned, hand frame, metres; the residual of fitted hands agrees.
THUMB_BASE = (0.0265, 0.0200, -0.0145)

_BONES = ("phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
FINGER_BONES = (
    ("thumb-metacarpal", "thumb-phalanx-proximal", "thumb-phalanx-distal", "thumb-tip"),
    *(
        tuple(
            f"{finger}-finger-{bone}" for bone in ("phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
        )
        for finger in ("index", "middle", "ring", "pinky")
    ),
)
_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def read_glb(path: Path) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """Return the attributes of the only mesh, the joint names, and the joints' rest poses (J, 4, 4)."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    gltf, binary = json.loads(data[20 : 20 + length]), data[28 + length :]

    def accessor(index: int) -> np.ndarray:
        entry = gltf["accessors"][index]
        start = gltf["bufferViews"][entry["bufferView"]].get("byteOffset", 0) + entry.get("byteOffset", 0)
        width = _WIDTHS[entry["type"]]
        flat = np.frombuffer(binary, _TYPES[entry["componentType"]], entry["count"] * width, start)
        return flat.reshape(-1, width)

    primitive = gltf["meshes"][0]["primitives"][0]
    arrays = {name: accessor(index) for name, index in primitive["attributes"].items()}
    arrays["FACES"] = accessor(primitive["indices"]).reshape(-1, 3)
    skin = gltf["skins"][0]
    bind = accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
    return arrays, [gltf["nodes"][i]["name"] for i in skin["joints"]], np.linalg.inv(bind)


def weld(positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kept vertex indices and faces over them; vertices at one position become one."""
    _, first, inverse = np.unique(np.round(positions, 6), axis=0, return_index=True, return_inverse=True)
    faces = inverse.ravel()[faces]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return first, faces[distinct]


def column_of(name: str) -> int:
    """Weight column (0 palm, 1 + joint) that a joint of the file moves with."""
    for finger, bones in enumerate(FINGER_BONES):
        if name in bones:
            return 1 + 3 * finger + min(bones.index(name), 2)
    return 0


def build(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the rig file."""
    arrays, names, poses = read_glb(path)
    kept, faces = weld(arrays["POSITION"], arrays["FACES"])
    at = {name: poses[i] for i, name in enumerate(names)}
    place = {name: pose[:3, 3] for name, pose in at.items()}
    wrist = place["wrist"]
    knuckles = [place[f"{finger}-finger-phalanx-proximal"] for finger in ("index", "middle", "pinky")]
    R = hand_axes(wrist, *knuckles)
    positions = (arrays["POSITION"][kept].astype(np.float64) - wrist) @ R.T
    weights = np.zeros((len(kept), 16))
    columns = np.array([column_of(name) for name in names])
    for slot in range(4):
        bone = columns[arrays["JOINTS_0"][kept, slot]]
        np.add.at(weights, (np.arange(len(kept)), bone), arrays["WEIGHTS_0"][kept, slot])
    weights /= weights.sum(1, keepdims=True)

    joints, axes, keypoints, ends = [], [], [np.zeros(3)], []
    for finger, bones in enumerate(FINGER_BONES):
        chain = [R @ (place[bone] - wrist) for bone in bones]
        for k in range(3):
            joints.append(chain[k])
            # WebXR joints look along -z with +y out of the back of the hand.
            up = R @ at[bones[k]][:3, 1]
            axes.append(joint_axes(chain[k + 1] - chain[k], up))
        last = positions[weights[:, 3 + 3 * finger] > 0.5]
        direction = (chain[3] - chain[2]) / np.linalg.norm(chain[3] - chain[2])
        reach = ((last - chain[3]) @ direction).max()
        ends.append(chain[3] + reach * direction)
        keypoints += [*chain[:3], chain[3] + TIP_FRACTION * reach * direction]
    size = HAND_LENGTH / np.linalg.norm(ends[2])
    keypoints[1] = np.array(THUMB_BASE) / size
    positions = thicken(positions, weights, np.array(joints), np.array(axes))
    mesh = trimesh.Trimesh(positions * size, faces, process=False)
    if not mesh.is_watertight or mesh.body_count != 1 or mesh.volume <= 0:
        raise SystemExit(f"{path}: the welded mesh is not one closed outward-facing body")
    return {
        "vertices": (positions * size).astype(np.float32),
        "faces": faces.astype(np.int32),
        "weights": weights.astype(np.float32),
        "joints": np.array(joints) * size,
        "axes": np.array(axes),
        "keypoints": np.array(keypoints) * size,
        "vertex_finger": label_fingers(weights).astype(np.int32),
    }


def thicken(positions: np.ndarray, weights: np.ndarray, joints: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return positions with the fingers (not the thumb's root, which is palm) grown about their bones."""
    grown = positions.copy()
    for joint in range(1, 15):
        away = positions - joints[joint]
        along = axes[joint][:, 2]
        across = away - (away @ along)[:, None] * along
        grown += (FINGER_THICKNESS - 1.0) * weights[:, 1 + joint, None] * across
    return grown


def main() -> None:
    """Read the two paths and write the rig."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glb", type=Path)
    parser.add_argument("npz", type=Path)
    arguments = parser.parse_args()
    np.savez_compressed(arguments.npz, **build(arguments.glb))


if __name__ == "__main__":
    main()
