# SPDX-License-Identifier: Apache-2.0
"""The registry of back ends: what may fill each stage, and what it needs. Plain data; nothing is imported here.

A factory is ``module:function`` with the signature ``make(models, options, device)``: ``models`` maps ids of the
catalogue to local folders or files, and what it returns is loaded. A back end without a factory is a way of the
pipeline's own, which needs no network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fmh_ros.core.errors import ProfileError

#: Every stage of a profile, in the order in which back ends are loaded: those that others use come first.
STAGES: Mapping[str, str] = {
    "detector": "finds hands and their landmarks",
    "namer": "says what the hand holds, for segmenters that can read",
    "segmenter": "separates hand, object and the rest",
    "sensor_points": "the visible surface, from aligned depth",
    "monocular_points": "the visible surface, without depth",
    "hand_model": "the hand that is fitted to landmarks",
    "hand_pose": "how the hand gets its pose",
    "amodal": "how far the object reaches behind the hand",
    "completer": "paints what the hand hides of the object",
    "generator": "the shape generator that guidance steers",
    "watcher": "looks for hands between jobs, in mode continuous",
}
DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
HANDS, FLOW = "fmh_ros.core.cues.foundation.hands", "fmh_ros.core.flow"
CUES, EMBEDDED = "fmh_ros.core.cues.foundation", "fmh_ros.core.cues.embedded"
#: What HaMeR's and WiLoR's networks need besides their own code.
HAND_LIBRARIES = ("pytorch_lightning", "yacs", "smplx", "pyrender", "timm", "torchvision")
#: MoGe with the one dependency that its model needs, at the commit that it names; the others are for its demos.
MOGE = (
    "pip install --no-deps git+https://github.com/microsoft/MoGe.git "
    "git+https://github.com/EasternJournalist/utils3d.git@3fab839f0be9931dac7c8488eb0e1600c236e183"
)
#: How each optional library is installed, by the name it is imported by. Those that are not on PyPI, and those whose
#: licence is not an open one, are in no extra of this package.
INSTALL: Mapping[str, str] = {
    "ai_edge_litert": "pip install ai-edge-litert",
    "transformers": "pip install 'fmh-ros[foundation]'",
    "diffusers": "pip install 'fmh-ros[foundation]'",
    "accelerate": "pip install 'fmh-ros[foundation]'",
    "hy3dgen": "pip install --no-deps hy3dgen==2.0.2",
    "hy3dshape": "pip install the hy3dshape folder of github.com/Tencent-Hunyuan/Hunyuan3D-2.1",
    **dict.fromkeys(("moge", "utils3d"), MOGE),
    "hamer": "pip install --no-deps git+https://github.com/geopavlakos/hamer.git",
    "wilor": "git clone https://github.com/rolpotamias/WiLoR and put it on PYTHONPATH",
    **dict.fromkeys(HAND_LIBRARIES, "pip install pytorch-lightning yacs smplx==0.1.28 pyrender timm torchvision"),
    "ultralytics": "pip install ultralytics",
}

OptionKind = type | tuple[str, ...]


@dataclass(frozen=True)
class BackEnd:
    """One row of the registry.

    summary : for people, one line. factory : "" for a way of the pipeline's own. models : ids of the catalogue.
    libraries : names to import; "a|b" means that either will do.
    options : type of each option, or the texts that it may be; fixed : options that make it this back end.
    model_options : an option that, when true, needs a model of its own.
    uses : option that is given another back end, loaded: a part, or the profile's own for a stage ("namer").
    reads_text : it can use the object's name. gpu : it runs on a graphics card when there is one.
    """

    stage: str
    name: str
    summary: str
    factory: str = ""
    models: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    options: Mapping[str, OptionKind] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    reads_text: bool = False
    gpu: bool = False

    @property
    def key(self) -> str:
        """Its name in the registry."""
        return f"{self.stage}/{self.name}"

    def models_for(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Ids of the models that it needs with these options."""
        return (*self.models, *(model for option, model in self.model_options.items() if options.get(option)))

    def missing_libraries(self) -> tuple[str, ...]:
        """Names of libraries that are not installed; of alternatives the first."""
        wanted = (names.split("|") for names in self.libraries)
        return tuple(names[0] for names in wanted if not any(map(is_installed, names)))


def is_installed(library: str) -> bool:
    """Whether a library can be found, without importing it."""
    try:
        return importlib.util.find_spec(library) is not None
    except ValueError:  # it is imported, and says nothing of where it came from
        return True


_TORCH: dict[str, OptionKind] = {"dtype": DTYPES}
_GENERATOR: dict[str, OptionKind] = {
    **_TORCH,
    "guidance_scale": float,
    "memory_mb": int,
    "mesh_resolution": int,
    "compile": bool,
}
_DETECTOR = {"detector": "detector/mediapipe"}
_NAMER = {"namer": "namer", "proposer": "segmenter/mask-network"}
_EDITOR: dict[str, OptionKind] = {**_TORCH, "steps": int, "side": int, "attempts": int, "offload": OFFLOADS}


def _foundation(stage: str, name: str, summary: str, factory: str, models: tuple[str, ...], **more: Any) -> BackEnd:
    """A back end on published weights through transformers, unless it says otherwise."""
    usual: dict[str, Any] = {"libraries": ("transformers",), "options": _TORCH, "gpu": True}
    return BackEnd(stage, name, summary, factory, models, **{**usual, **more})


def _regressor(stage: str, name: str, summary: str) -> BackEnd:
    """HaMeR or WiLoR, in boxes that WiLoR's detector finds."""
    return _foundation(
        stage,
        name,
        summary,
        f"{HANDS}:make_hamer",
        (name, "mano", "wilor-detector"),
        libraries=(name, *HAND_LIBRARIES, "ultralytics"),
        uses=_DETECTOR,
    )


def _hunyuan(variant: str, summary: str, vae: str = "") -> BackEnd:
    """A variant of the Hunyuan3D generator; vae : id of a faster autoencoder for it."""
    options: dict[str, OptionKind] = {**_GENERATOR, "guidance_schedule": ("constant", "decaying")}
    return BackEnd(
        "generator",
        f"hunyuan3d-{variant}",
        summary,
        f"{FLOW}.hunyuan.model:make_hunyuan",
        (f"hunyuan3d-{variant}",),
        ("hy3dshape|hy3dgen" if variant == "2.1" else "hy3dgen|hy3dshape", "transformers", "accelerate"),
        {**options, **({"fast_vae": bool} if vae else {})},
        fixed={"variant": variant},
        model_options={"fast_vae": vae} if vae else {},
        gpu=True,
    )


def _editor(name: str, summary: str, factory: str, model: str, **more: OptionKind) -> BackEnd:
    """A completer that paints the hand out by an image editor."""
    return _foundation(
        "completer",
        name,
        summary,
        f"{CUES}.inpainting:{factory}",
        (model,),
        libraries=("diffusers", "transformers", "accelerate"),
        options={**_EDITOR, **more},
        uses=_DETECTOR,
    )


_TABLE = (
    # Shared parts of the embedded back ends: one set of networks, whoever uses it.
    BackEnd("part", "hand-networks", "MediaPipe's palms and landmarks", f"{EMBEDDED}:make_hand_networks"),
    BackEnd("part", "mask-predictor", "the embedded mask network", f"{EMBEDDED}:make_mask_predictor"),
    BackEnd(
        "detector",
        "mediapipe",
        "MediaPipe's networks, shipped with the package",
        f"{EMBEDDED}:make_detector",
        libraries=("ai_edge_litert",),
        uses={"networks": "part/hand-networks"},
    ),
    _foundation(
        "detector",
        "vitpose",
        "MediaPipe's hands, sharpened",
        f"{HANDS}:make_vitpose",
        ("vitpose-hand",),
        uses=_DETECTOR,
    ),
    _regressor("detector", "hamer", "WiLoR's boxes and HaMeR"),
    _regressor("detector", "wilor", "WiLoR"),
    BackEnd("namer", "user", "nobody but the user names the object"),
    _foundation(
        "namer", "qwen-vl", "a vision-language model on this machine", f"{CUES}.naming:make_qwen_namer", ("qwen-vl",)
    ),
    BackEnd(
        "namer",
        "gemini",
        "Google's service, with the user's key: images leave this machine",
        f"{CUES}.naming:make_gemini_namer",
        options={"key": str, "model": str, "endpoint": str, "timeout_s": float},
    ),
    BackEnd(
        "segmenter",
        "mask-network",
        "the embedded network, shipped with the package",
        f"{EMBEDDED}:make_segmenter",
        uses={"predictor": "part/mask-predictor"},
    ),
    _foundation("segmenter", "sam2", "SAM 2", f"{CUES}.masks:make_sam2", ("sam2",), uses=_NAMER),
    _foundation(
        "segmenter",
        "langsam",
        "GroundingDINO and SAM 2: finds what is named",
        f"{CUES}.masks:make_sam2",
        ("sam2", "grounding-dino"),
        options={**_TORCH, "box_score": float},
        uses=_NAMER,
        reads_text=True,
    ),
    _foundation(
        "segmenter",
        "sam3",
        "SAM 3: finds what is named",
        f"{CUES}.masks:make_sam3",
        ("sam3",),
        options={**_TORCH, "box_score": float},
        uses=_NAMER,
        reads_text=True,
    ),
    BackEnd("sensor_points", "sensor", "aligned depth, cleaned", f"{EMBEDDED}:make_sensor_points"),
    BackEnd("monocular_points", "none", "nothing is known without depth"),
    _foundation(
        "monocular_points",
        "moge",
        "MoGe-2",
        f"{CUES}.points:make_moge",
        ("moge",),
        libraries=("moge", "utils3d"),
        options={**_TORCH, "resolution_level": int},
    ),
    _foundation(
        "monocular_points",
        "depth-anything",
        "Depth Anything V2, metric, indoors",
        f"{CUES}.points:make_depth_anything",
        ("depth-anything",),
    ),
    _foundation("monocular_points", "depth-pro", "Depth Pro", f"{CUES}.points:make_depth_pro", ("depth-pro",)),
    BackEnd("hand_model", "generic", "a generic hand, shipped with the package", "fmh_ros.core.hand.rig:make_generic"),
    BackEnd("hand_model", "mano", "MANO, from the user's file", "fmh_ros.core.hand.mano:make_mano", ("mano",)),
    BackEnd("hand_pose", "fit", "the hand model is fitted to landmarks and depth"),
    _regressor("hand_pose", "hamer", "HaMeR gives the mesh"),
    _regressor("hand_pose", "wilor", "WiLoR gives the mesh"),
    BackEnd("amodal", "network", "a small network, shipped with the package", f"{EMBEDDED}:make_amodal"),
    BackEnd("amodal", "segmenter", "what the segmenter says, if it says anything"),
    BackEnd("completer", "none", "nothing is painted, and the generator fills hidden parts"),
    _editor("kontext", "FLUX.1 Kontext: the paper's", "make_kontext", "flux-kontext"),
    _editor("klein", "FLUX.2 klein: few steps", "make_klein", "flux2-klein"),
    _editor(
        "qwen-edit",
        "Qwen-Image-Edit",
        "make_qwen_edit",
        "qwen-image-edit",
        pipeline=("QwenImageEditPlusPipeline", "QwenImageEditPipeline"),
    ),
    BackEnd("generator", "embedded", "a small flow, shipped with the package", f"{FLOW}.embedded.model:make_embedded"),
    _hunyuan("2.0", "Hunyuan3D-2: the paper's generator", "hunyuan3d-vae-2.0-turbo"),
    _hunyuan("2.0-fast", "Hunyuan3D-2, guidance distilled", "hunyuan3d-vae-2.0-turbo"),
    _hunyuan("2.0-turbo", "Hunyuan3D-2 in a few steps", "hunyuan3d-vae-2.0-turbo"),
    _hunyuan("mini", "Hunyuan3D-2mini", "hunyuan3d-vae-mini-turbo"),
    _hunyuan("mini-fast", "Hunyuan3D-2mini, guidance distilled", "hunyuan3d-vae-mini-turbo"),
    _hunyuan("mini-turbo", "Hunyuan3D-2mini in a few steps", "hunyuan3d-vae-mini-turbo"),
    _hunyuan("2.1", "Hunyuan3D-2.1"),
    BackEnd(
        "generator",
        "triposg",
        "TripoSG, for products",
        f"{FLOW}.triposg.model:make_triposg",
        ("triposg",),
        ("diffusers", "transformers", "accelerate"),
        {**_GENERATOR, "tokens": int},
        gpu=True,
    ),
    BackEnd(
        "watcher",
        "embedded",
        "MediaPipe's landmarks and the embedded mask network",
        f"{EMBEDDED}:make_watcher",
        libraries=("ai_edge_litert",),
        uses={"networks": "part/hand-networks", "predictor": "part/mask-predictor"},
    ),
)
BACKENDS: Mapping[str, BackEnd] = {each.key: each for each in _TABLE}


def names_of(stage: str) -> tuple[str, ...]:
    """Names of the back ends of a stage."""
    return tuple(each.name for each in _TABLE if each.stage == stage)


def find_backend(stage: str, name: str) -> BackEnd:
    """Return a row. Raises ProfileError for an unknown stage or back end."""
    if stage not in STAGES:
        raise ProfileError(
            f"There is no stage {stage!r}", expected="one of " + ", ".join(STAGES), change="Correct the stage's name"
        )
    found = BACKENDS.get(f"{stage}/{name}")
    if found is None:
        raise ProfileError(
            f"There is no back end {name!r} for the stage {stage}",
            expected="one of " + ", ".join(names_of(stage)),
            change=f"Name one of them, for instance --stage {stage}={names_of(stage)[0]}",
        )
    return found


def check_options(backend: BackEnd, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a back end's options, whole numbers taken for decimals. Raises ProfileError for one that cannot be."""
    checked: dict[str, Any] = {}
    for name, value in options.items():
        kind = backend.options.get(name)
        if kind is None:
            known = ", ".join(backend.options)
            raise ProfileError(
                f"The back end {backend.key} has no option {name!r}",
                expected=f"one of {known}" if known else "no options",
                change="Correct its name, or leave it out",
            )
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # noqa: PLW2901 - YAML writes 5 for 5.0
        fits = value in kind if isinstance(kind, tuple) else type(value) is kind
        if not fits:
            wanted = "one of " + ", ".join(kind) if isinstance(kind, tuple) else f"a value of type {kind.__name__}"
            raise ProfileError(
                f"The option {name} of {backend.key} is {value!r}", expected=wanted, change="Correct it in the profile"
            )
        checked[name] = value
    return checked
