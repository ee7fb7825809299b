# SPDX-License-Identifier: Apache-2.0
"""Small copies of DexYCB, OakInk and ARCTIC in their exact layouts, with a known hand and object painted into images.

Truth and images are made here by other ways than the loaders': MANO by ``reference_hand``, pictures by OpenCV's own
projection and polygons.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh
import yaml
from mano_files import mano_content, reference_hand, write_mano, write_pickle
from PIL import Image
from scipy.spatial.transform import Rotation

HAND, OBJECT, FLOOR = (210, 70, 30), (30, 80, 220), (60, 60, 60)
SUBJECT, SEQUENCE, CAMERA = "20200709-subject-01", "20200709_153148", "840412060917"
OAK_TIME = "2021-10-12-17-13-00"


@dataclass(frozen=True)
class Known:
    """The truth of a sample in the camera optical frame, metres; pose : T_camera_object (4, 4)."""

    side: str
    hand: np.ndarray
    keypoints: np.ndarray
    object: np.ndarray
    pose: np.ndarray


Project = Callable[[np.ndarray], np.ndarray]


def pinhole(K: np.ndarray, distortion: np.ndarray | None = None) -> Project:
    """Projection by OpenCV."""
    return lambda points: cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]


def paint(size: tuple[int, int], project: Project, parts: list[tuple[np.ndarray, np.ndarray, Any]]) -> np.ndarray:
    """Draw meshes in one colour each, far triangles first; size : width, height."""
    picture = np.full((size[1], size[0], 3), FLOOR, np.uint8)
    triangles = []
    for vertices, faces, colour in parts:
        pixels = project(vertices)
        triangles += [(vertices[face, 2].mean(), pixels[face], colour) for face in faces]
    for _, corners, colour in sorted(triangles, key=lambda each: -each[0]):
        cv2.fillConvexPoly(picture, np.round(corners * 256).astype(np.int32), colour, cv2.LINE_8, 8)
    return picture


def boxy(centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    """An object without symmetry, metres."""
    mesh = trimesh.creation.box((0.05, 0.08, 0.11))
    mesh.vertices[mesh.vertices[:, 2] > 0] *= [0.7, 0.8, 1.0]
    mesh = mesh.subdivide().subdivide().subdivide()
    mesh.apply_translation(centre)
    return mesh


def turn(x: float, y: float, z: float) -> np.ndarray:
    """A rotation matrix."""
    return Rotation.from_euler("xyz", (x, y, z)).as_matrix()


def rigid(R: np.ndarray, t: Any) -> np.ndarray:
    """A pose (4, 4)."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, t
    return pose


def moved(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points in the frame that the pose is given in."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def write_csv(path: Path, columns: str, lines: list[str]) -> Path:
    """A list of test images."""
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def write_obj(path: Path, mesh: trimesh.Trimesh, scale: float = 1.0, textured: bool = False) -> None:
    """Write a model as a text file of vertices and faces, 9 digits; with a texture that has a seam at every edge."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices * scale]
    if not textured:
        path.write_text("\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in mesh.faces + 1)]) + "\n")
        return
    Image.new("RGB", (8, 8), (90, 60, 30)).save(path.parent / "texture_map.png")
    material = "newmtl material_0\nKa 1 1 1\nKd 1 1 1\nmap_Kd texture_map.png\n"
    (path.parent / f"{path.stem}.obj.mtl").write_text(material)
    lines = [f"mtllib ./{path.stem}.obj.mtl", *lines]
    lines += [f"vn {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertex_normals]
    lines += [f"vt {k / (3 * len(mesh.faces)):.6f} {k % 3 / 3:.6f}" for k in range(3 * len(mesh.faces))]
    lines.append("usemtl material_0")
    for face, corners in enumerate(mesh.faces + 1):
        lines.append("f " + " ".join(f"{v}/{3 * face + k + 1}/{v}" for k, v in enumerate(corners)))
    path.write_text("\n".join(lines) + "\n")


def hand_parameters(side: str, seed: int) -> dict[str, np.ndarray]:
    """A hand about 0.6 m before the camera, its back towards it, fingers to the right (left) of the picture."""
    rng = np.random.default_rng(seed)
    sign = 1.0 if side == "right" else -1.0
    rotation = Rotation.from_euler("xyz", (0.3, 0.2 * sign, 0.1)).as_rotvec()
    return {
        "rotation": rotation,
        "coefficients": rng.normal(0, 0.06, 45),
        "betas": rng.normal(0, 0.5, 10),
        "translation": np.array([-0.15 * sign, 0.02, 0.62]),
    }


def dexycb_tree(root: Path) -> dict[str, Known]:
    """Three rows: a right hand with a mug, a left one with a drill, one image that is not there."""
    write_mano(root / "mano")
    K = np.array([[615.0, 0, 318.0], [0, 614.0, 243.0], [0, 0, 1.0]])
    write_yaml(
        root / "calibration" / "intrinsics" / f"{CAMERA}_640x480.yml",
        {"color": {"fx": 615.0, "fy": 614.0, "ppx": 318.0, "ppy": 243.0}, "depth": {"fx": 1.0}},
    )
    known = {}
    cases = [("right", SEQUENCE, [6, 14, 20], 1, "025_mug"), ("left", "20200709_144814", [15, 2], 0, "035_power_drill")]
    for number, (side, sequence, ids, grasped, model) in enumerate(cases):
        hand = hand_parameters(side, number)
        content = mano_content(side)
        fingers = content["hands_mean"] + hand["coefficients"] @ content["hands_components"]
        vertices, keypoints = reference_hand(
            content, hand["rotation"], fingers, hand["betas"], hand["translation"].astype(np.float32)
        )
        pose = rigid(turn(0.4, -0.3, 0.8), vertices.mean(0) + BESIDE).astype(np.float32).astype(np.float64)
        mesh = boxy((0.01, 0.02, -0.03))
        write_obj(root / "models" / model / "textured_simple.obj", mesh, textured=True)
        held = moved(pose, mesh.vertices)
        picture = paint((640, 480), pinhole(K), [(vertices, content["f"], HAND), (held, mesh.faces, OBJECT)])
        folder = root / SUBJECT / sequence / CAMERA
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / "color_000060.jpg", quality=97, subsampling=0)
        depth = np.full((480, 640), 700, np.uint16)
        depth[:100] = 0
        cv2.imwrite(str(folder / "aligned_depth_to_color_000060.png"), depth)
        poses = np.zeros((len(ids), 3, 4), np.float32)
        poses[grasped] = pose[:3]
        seg = np.zeros((480, 640), np.uint8)
        seg[(picture == HAND).all(-1)], seg[(picture == OBJECT).all(-1)] = 255, ids[grasped]
        pose_m = np.concatenate([hand["rotation"], hand["coefficients"], hand["translation"]])[None].astype(np.float32)
        labels = {"seg": seg, "pose_y": poses, "pose_m": pose_m}
        labels |= {"joint_3d": keypoints[None].astype(np.float32), "joint_2d": pinhole(K)(keypoints)[None]}
        np.savez(folder / "labels_000060.npz", **labels)
        meta = {"serials": [CAMERA], "num_frames": 72, "extrinsics": "20200702_151821", "ycb_ids": ids}
        meta |= {"ycb_grasp_ind": grasped, "mano_sides": [side], "mano_calib": [f"2020_{side}"]}
        write_yaml(folder.parent / "meta.yml", meta)
        write_yaml(root / "calibration" / f"mano_2020_{side}" / "mano.yml", {"betas": hand["betas"].tolist()})
        known[f"dexycb_{number:04d}"] = Known(side, vertices, keypoints, held, pose)
    lines = [f"{k},DexYCB/{SUBJECT}/{case[1]}/{CAMERA}/color_000060.jpg" for k, case in enumerate(cases)]
    lines.append(f"7,DexYCB/{SUBJECT}/20200709_999999/{CAMERA}/color_000060.jpg")
    write_csv(root / "dexycb_test.csv", "img_id,img_path", lines)
    return known


def write_yaml(path: Path, values: Any) -> None:
    """Write a YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def oakink_tree(root: Path) -> dict[str, Known]:
    """Two rows: one person who uses a thing, and two of whom the second one has it in the hand."""
    write_mano(root / "mano", "right")
    K = np.array([[610.0, 0, 421.0], [0, 611.0, 238.0], [0, 0, 1.0]], np.float32)
    cases = [("A01023_0001_0002", "A01023", [0]), ("S10023_0004_0003_0001", "S10023", [0, 1])]
    known = {}
    content = mano_content("right")
    for number, (sequence, thing, persons) in enumerate(cases):
        mesh = boxy((0.4, -0.2, 0.3))  # the file's origin is nowhere near the object
        write_obj(root / "image" / "obj" / f"{thing}.obj", mesh)
        centred = mesh.vertices - (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        pose = None
        parts, hands = [], []
        for person in persons:
            hand = hand_parameters("right", 10 * number + person)
            away = np.array([0.24, -0.04, 0.0]) if person != persons[-1] else np.zeros(3)
            made = reference_hand(
                content, hand["rotation"], content["hands_mean"], hand["betas"], hand["translation"] + away
            )
            hands.append([each.astype(np.float32).astype(np.float64) for each in made])
            parts.append((hands[-1][0], content["f"], HAND))
        vertices = hands[-1][0]
        pose = rigid(turn(0.2, 0.5, -0.4), vertices.mean(0) + BESIDE).astype(np.float32).astype(np.float64)
        held = moved(pose, centred)
        picture = paint((848, 480), pinhole(K.astype(np.float64)), [*parts, (held, mesh.faces, OBJECT)])
        folder = root / "image" / "stream_release_v2" / sequence / OAK_TIME
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / "south_east_color_90.png")
        for person, (points, joints) in zip(persons, hands, strict=True):
            values = {"cam_intr": K, "hand_v": points, "hand_j": joints, "obj_transf": pose}
            for part, value in values.items():
                path = root / "image" / "anno" / part / f"{sequence}__{OAK_TIME}__{person}__90__1.pkl"
                write_pickle(path, value.astype(np.float32), 4)
        known[f"oakink_{3 * number:04d}"] = Known("right", vertices, hands[-1][1], held, pose)
    where = "OakInk/image/stream_release_v2"
    lines = [f"{3 * k},{c[1]},1,2,{where}/{c[0]}/{OAK_TIME}/south_east_color_90.png" for k, c in enumerate(cases)]
    write_csv(root / "oakink_test.csv", "img_id,obj_id,intent_id,subj_id,img_path", lines)
    return known


#: From the middle of a hand to the object's, metres.
BESIDE = np.array([0.02, 0.05, 0.05])
ARCTIC_OFFSET, ARCTIC_FRAMES, ARCTIC_FULL = 30, 4, (1400, 1000)
DIST8 = np.array([0.25, -0.12, 1e-3, -8e-4, 0.03, 0.12, -0.05, 0.01])


def arctic_object() -> tuple[trimesh.Trimesh, np.ndarray]:
    """A box with a lid, metres, and which vertices are the lid's."""
    bottom = trimesh.creation.box((0.12, 0.08, 0.06)).subdivide().subdivide()
    top = trimesh.creation.box((0.12, 0.08, 0.02)).subdivide().subdivide()
    bottom.apply_translation((0.0, 0.04, -0.04))
    top.apply_translation((0.05, 0.04, 0.02))
    return trimesh.util.concatenate([bottom, top]), np.arange(len(bottom.vertices) + len(top.vertices)) >= len(
        bottom.vertices
    )


def arctic_tree(root: Path, top_label: int = 0) -> dict[str, Known]:
    """Three rows of one instant: a crop of view 3, view 5 in full size, and the camera on the head, distorted."""
    data = root / "data" / "arctic_data" / "data"
    write_mano(root / "data" / "body_models" / "mano")
    K = np.array([[1500.0, 0, 690.0], [0, 1490.0, 510.0], [0, 0, 1.0]])
    head_K = np.array([[1100.0, 0, 705.0], [0, 1105.0, 490.0], [0, 0, 1.0]])
    poses = [rigid(turn(0.1 * v, -0.5 + 0.2 * v, 0.05 * v), (0.05, 0.02 * v, 0.1)) for v in range(8)]
    frame = 2
    head = [rigid(turn(0.1, 0.1 * k, 0.0), (0.0, 0.03, -0.08 + 0.01 * k)) for k in range(ARCTIC_FRAMES)]
    mesh, lid = arctic_object()
    arti, rotation, shift = 0.6, Rotation.from_euler("xyz", (1.2, 0.4, -0.5)).as_rotvec(), np.array([0.02, 0.01, 0.66])
    parameters = np.zeros((ARCTIC_FRAMES, 7))
    parameters[frame] = [arti, *rotation, *(1000 * shift)]
    swung = np.where(lid[:, None], mesh.vertices @ turn(0, 0, -arti).T, mesh.vertices)
    object_pose = rigid(Rotation.from_rotvec(rotation).as_matrix(), shift)
    world = moved(object_pose, swung)
    raw: dict[str, Any] = {}
    hands = []
    for side, aside in (("right", 0.0), ("left", 0.10)):
        hand, content = hand_parameters(side, 5), mano_content(side)
        rot, pose, trans = (np.zeros((ARCTIC_FRAMES, n)) for n in (3, 45, 3))
        rot[frame], pose[frame] = hand["rotation"], 0.2 * hand["coefficients"]
        trans[frame] = hand["translation"] + [aside, 0.0, 0.02]
        raw[side] = {"rot": rot, "pose": pose, "trans": trans, "shape": hand["betas"], "fitting_err": rot[:, 0]}
        made = reference_hand(content, rot[frame], content["hands_mean"] + pose[frame], hand["betas"], trans[frame])
        hands.append((side, *made, content["f"]))
    sequence = data / "raw_seqs" / "s01" / "box_grab_01"
    sequence.parent.mkdir(parents=True)
    np.save(f"{sequence}.mano.npy", np.array(raw, dtype=object), allow_pickle=True)
    np.save(f"{sequence}.object.npy", parameters)
    ego = {"R_k_cam_np": np.array([p[:3, :3] for p in head]), "T_k_cam_np": np.array([p[:3, 3:] for p in head])}
    ego |= {"intrinsics": head_K, "dist8": DIST8, "ego_markers.label": np.array(["a", "b"])}
    np.save(f"{sequence}.egocam.dist.npy", np.array(ego, dtype=object), allow_pickle=True)
    setup = {"world2cam": np.array(poses).tolist(), "intris_mat": [K.tolist()] * 8, "ioi_offset": ARCTIC_OFFSET}
    setup |= {"image_size": [list(ARCTIC_FULL)] * 9, "gender": "male"}
    model = data / "meta" / "object_vtemplates" / "box"
    write_obj(model / "mesh.obj", mesh, 1000.0)
    (model / "parts.json").write_text(json.dumps([int(top_label if is_lid else 1 - top_label) for is_lid in lid]))
    tips = {"keypoints": (1000 * mesh.vertices[lid][::3]).tolist()}
    (model / "top_keypoints_300.json").write_text(json.dumps(tips))
    (data / "meta" / "misc.json").write_text(json.dumps({"s01": setup}))
    known, lines = {}, []
    views = [("cropped_images", 3), ("images", 5), ("cropped_images", 0)]
    for number, (kind, view) in enumerate(views):
        camera = head[frame] if view == 0 else poses[view - 1]
        project = pinhole(head_K, DIST8) if view == 0 else pinhole(K)
        seen = moved(camera, world)
        parts = [(moved(camera, vertices), faces, HAND) for _, vertices, _, faces in hands]
        picture = Image.fromarray(paint(ARCTIC_FULL, project, [*parts, (seen, mesh.faces, OBJECT)]))
        if view == 0:
            picture = picture.resize((int(0.3 * ARCTIC_FULL[0]), int(0.3 * ARCTIC_FULL[1])))
        elif kind == "cropped_images":
            low, high = project(seen).min(0), project(seen).max(0)
            centre, side_px = (low + high) / 2, 1.5 * max(1.7 * (high - low).max(), 600.0)
            corners = [round(float(v)) for v in (*(centre - side_px / 2), *(centre + side_px / 2))]
            picture = picture.crop(tuple(corners)).resize((1000, 1000))
        path = data / kind / "s01" / "box_grab_01" / str(view) / f"{ARCTIC_OFFSET + frame:05d}.jpg"
        path.parent.mkdir(parents=True)
        picture.save(path, quality=97, subsampling=0)
        side, vertices, keypoints, _ = hands[1]  # the nearer one
        name = f"arctic_{number:04d}"
        known[name] = Known(side, moved(camera, vertices), moved(camera, keypoints), seen, camera @ object_pose)
        where = "arctic/arctic/data/arctic_data/data/cropped_images/s01/box_grab_01"
        lines.append(f"{number},{where}/{view}/{path.name},s01/box_grab_01,{ARCTIC_OFFSET + frame}")
    write_csv(root / "arctic_test.csv", "img_id,img_path,sid_seq_name,frame", lines)
    return known


TREES = {"dexycb": dexycb_tree, "oakink": oakink_tree, "arctic": arctic_tree}
