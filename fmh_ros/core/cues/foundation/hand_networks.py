# SPDX-License-Identifier: Apache-2.0
"""Loads HaMeR and WiLoR by the classes of the user's packages, from their published folders and the user's MANO.

The packages' own loaders look for MANO below the working directory, read it by chumpy, which no current Python
installs, start an OpenGL renderer for training pictures, and unpickle whatever the checkpoint names. Here the same
classes are made from the published config with the user's file and no renderer, and nothing but tensors is taken from
the checkpoint.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmh_ros.core.errors import ModelFileError
from fmh_ros.core.hand.mano_file import mano_array, mano_regressor, read_mano_file
from fmh_ros.core.pretrained import library_class, shared

#: What both need besides their own code; detectron2, mmcv and chumpy, which they name too, are for demos and training.
_NEEDS = "pip install pytorch-lightning yacs smplx==0.1.28 pyrender timm torchvision"
#: MANO's arrays that smplx reads, with their dimensions.
_MANO_ARRAYS = {
    "v_template": 2, "f": 2, "weights": 2, "kintree_table": 2, "shapedirs": 3, "posedirs": 3, "hands_mean": 1,
    "hands_components": 2,
}  # fmt: skip
_MEAN = {"pose": "init_hand_pose", "shape": "init_betas", "cam": "init_cam"}
_READ_ERRORS = (OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError, EOFError)


@dataclass(frozen=True)
class _Published:
    """network : class in the package's ``models``; mean : the part of it that holds the mean hand; parts : its parts
    with weights of their own; install : how the user gets the package."""

    network: str
    mean: str
    parts: tuple[str, ...]
    install: str


_PUBLISHED = {
    "hamer": _Published(
        "HAMER",
        "mano_head",
        ("backbone.", "mano_head."),
        f"pip install --no-deps git+https://github.com/geopavlakos/hamer.git, then {_NEEDS}",
    ),
    "wilor": _Published(
        "WiLoR",
        "backbone",
        ("backbone.", "refine_net."),
        f"git clone https://github.com/rolpotamias/WiLoR (CC BY-NC-ND), put it on PYTHONPATH, then {_NEEDS}",
    ),
}


def load_regressor(name: str, checkpoint: Path, mano: Path, device: str) -> Any:
    """Return "hamer"'s or "wilor"'s network in evaluation mode, float32.

    checkpoint : the published .ckpt, with model_config.yaml beside it or one folder above; mano : MANO_RIGHT.pkl.
    Raises ModelMissingError (package) or ModelFileError (files).
    """
    return shared((name, checkpoint, mano, device), lambda: _load_regressor(name, checkpoint, mano, device))


def _load_regressor(name: str, checkpoint: Path, mano: Path, device: str) -> Any:
    published = _PUBLISHED[name]
    get_config = library_class(f"{name}.configs", "get_config", published.install)
    kind = library_class(f"{name}.models", published.network, published.install)
    hand = _mano_arrays(mano)
    try:
        weights = read_weights(checkpoint)
        mean: dict[str, Any] = {
            key: weights[f"{published.mean}.{value}"].float().numpy().ravel() for key, value in _MEAN.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "MANO_RIGHT.npz", **hand)
            np.savez(Path(folder) / "mean.npz", **mean)
            network = kind(_config(get_config, checkpoint, Path(folder)), init_renderer=False)
        missing = network.load_state_dict(weights, strict=False).missing_keys
        missing = sorted(key for key in missing if key.startswith(published.parts))
        if missing:  # it would go on with random numbers in their place
            raise KeyError(f"{missing[:3]} are not in it")
    except (*_READ_ERRORS, pickle.UnpicklingError) as error:
        raise ModelFileError(
            f"{checkpoint} cannot be loaded as {name}: {str(error)[:200]}",
            expected="the publisher's checkpoint and model_config.yaml, unchanged",
            change="Run fmh models verify",
        ) from error
    # MANO's layer computes in float32 whatever the rest does, and millimetres are wanted.
    return network.eval().requires_grad_(False).to(device, torch.float32)


def _config(get_config: Any, checkpoint: Path, folder: Path) -> Any:
    """The published config, with MANO and the mean hand from ``folder``, and without what only training uses."""
    places = (checkpoint.parent, checkpoint.parent.parent)
    path = next((place / "model_config.yaml" for place in places if (place / "model_config.yaml").is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no model_config.yaml in {places[0]} or {places[1]}")
    config = get_config(str(path))
    config.defrost()
    config.MANO.MODEL_PATH, config.MANO.EXT = str(folder), "npz"
    config.MANO.MEAN_PARAMS = str(folder / "mean.npz")
    config.MODEL.BACKBONE.pop("PRETRAINED_WEIGHTS", None)
    config.LOSS_WEIGHTS.ADVERSARIAL = 0
    config.freeze()
    return config


def _mano_arrays(path: Path) -> dict[str, Any]:
    """The arrays of MANO's file, plain, as smplx reads them from an .npz. Raises FileMissingError or ModelFileError."""
    data = read_mano_file(path)
    arrays: dict[str, Any] = {key: mano_array(data, key, count) for key, count in _MANO_ARRAYS.items()}
    whole = {key: arrays[key].astype(np.int64) for key in ("f", "kintree_table")}
    return arrays | whole | {"J_regressor": mano_regressor(data)}


class _Inert(dict[Any, Any]):
    """Stands in for whatever else a checkpoint holds: configs, counters, states of optimisers. Keeps nothing of it."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __call__(self, *_: object, **__: object) -> _Inert:
        """Stand in for what a function that was named would have returned."""
        return _Inert()

    def __setitem__(self, key: object, value: object) -> None:
        """Forget an entry."""

    def __setstate__(self, state: object) -> None:
        """Forget a state."""

    def append(self, value: object) -> None:
        """Forget an element."""


class _TensorsOnly(pickle.Unpickler):
    """Makes tensors and plain values; every other name becomes `_Inert`, so that nothing in a file can run."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return getattr(torch._utils, name)
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Inert


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a Lightning checkpoint's ``state_dict``. Raises ValueError where there are none."""
    reader = SimpleNamespace(__name__="tensors_only", Unpickler=_TensorsOnly)
    content = torch.load(checkpoint, map_location="cpu", weights_only=False, pickle_module=reader)
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError("it holds no state_dict")
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
