# SPDX-License-Identifier: Apache-2.0
"""What back ends on published models share, cues and generators: where weights lie, how they are loaded, with which
types, and how images become tensors. Optional libraries are imported when something is loaded, never before."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from fmh_ros.core.errors import ModelFileError, ModelMissingError, ProfileError

FloatArray = NDArray[np.float64]

#: Channel means and deviations, of values in 0..1, that a network was trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

#: Ends of names of weights that only training uses; some publishers leave them out.
_UNUSED = ("mask_token", "position_ids")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """Where a network lives: device "cpu", "cuda", "cuda:1"; the type of its weights and activations."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32


def network_dtype(name: str, device: str) -> torch.dtype:
    """The type of an option: "float32", "float16", "bfloat16", or "auto", which is bfloat16 on a graphics card and
    float32 on a processor. Raises ProfileError."""
    if name == "auto":
        name = "float32" if device == "cpu" else "bfloat16"
    if name not in _DTYPES:
        raise ProfileError(f"There is no dtype {name!r}", expected="one of auto, " + ", ".join(_DTYPES))
    return _DTYPES[name]


def placement(options: Mapping[str, Any], device: str) -> Placement:
    """Read option ``dtype``, "float32" by default. Raises ProfileError."""
    return Placement(device, network_dtype(str(options.get("dtype", "float32")), device))


class NetworkPool:
    """Networks by what they were made from, for as long as a back end holds them: weights are never loaded twice, also
    where two back ends, or two settings of one, have them in common."""

    def __init__(self) -> None:
        self._networks: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Have loaders within look here first."""
        token = _POOL.set(self)
        try:
            yield
        finally:
            _POOL.reset(token)

    def get(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return what was made from ``key``, made now if nobody holds it."""
        found = self._networks.get(key)
        if found is None:
            found = self._networks[key] = make()
        return found


_POOL: ContextVar[NetworkPool | None] = ContextVar("network_pool", default=None)


def shared(key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """Return networks that the pool in use has, or make them. key : all that they depend on: code, files, device, type.
    Without a pool they are made. Where they lie now may be another device than they were made on."""
    pool = _POOL.get()
    return make() if pool is None else pool.get(key, make)


def local_path(models: Mapping[str, Path], *ids: str) -> Path:
    """Return the place of the first of some interchangeable models that is there. Raises ModelMissingError."""
    for model in ids:
        if model in models:
            return models[model]
    raise ModelMissingError(
        f"None of the models {', '.join(ids)} is installed" if len(ids) > 1 else f"The model {ids[0]} is not installed",
        change="Run fmh models pull with the name of the profile",
    )


def library(name: str, install: str = "pip install 'fmh-ros[foundation]'") -> Any:
    """Import an optional library. Raises ModelMissingError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelMissingError(f"The library {name} cannot be imported ({error})", change=f"Run {install}") from error


def library_class(module: str, name: str, install: str = "pip install -U 'fmh-ros[foundation]'") -> Any:
    """Return a class of an optional library. Raises ModelMissingError when its version has none of that name."""
    owner = library(module, install)
    found = getattr(owner, name, None)
    if found is None:
        raise ModelMissingError(
            f"The installed {module} {getattr(owner, '__version__', '')} has no {name}",
            expected="a newer version",
            change=f"Run {install}",
        )
    return found


def load_network(module: str, name: str, folder: Path, where: Placement) -> Any:
    """Load a network of a Hugging Face library from a local folder in the publisher's layout, for inference.

    Only safetensors are read, nothing is looked up online. Raises ModelMissingError or ModelFileError.
    """
    return shared((module, name, folder, where), lambda: _load_network(module, name, folder, where))


def _load_network(module: str, name: str, folder: Path, where: Placement) -> Any:
    kind = library_class(module, name)
    if not folder.is_dir():
        raise ModelMissingError(
            f"There is no folder {folder} with the weights of {name}", change="Run fmh models pull with the profile"
        )
    try:
        network, loaded = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=where.dtype, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, name, error) from error
    missing = sorted(key for key in loaded["missing_keys"] if not key.endswith(_UNUSED))
    if missing:  # the library would go on with random numbers in their place
        raise _damaged(folder, name, KeyError(f"{missing[:3]} are not in it"))
    return network.eval().requires_grad_(False).to(where.device)


def load_helper(module: str, name: str, folder: Path) -> Any:
    """Load a tokenizer or processor from a local folder. Raises ModelMissingError or ModelFileError."""
    try:
        return library_class(module, name).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, name, error) from error


def _damaged(folder: Path, name: str, error: Exception) -> ModelFileError:
    """The error for a folder whose content is not the model it should be."""
    return ModelFileError(
        f"{folder} cannot be loaded as {name}: {str(error).splitlines()[0][:200] if str(error) else type(error)}",
        expected="the publisher's folder, complete and unchanged",
        change="Run fmh models verify, then fmh models pull",
    )


def to_tensor(image: NDArray[np.uint8], size: tuple[int, int], statistics: tuple[Any, Any], where: Placement) -> Tensor:
    """Resize and normalise an image (H, W, 3) RGB for a network: (1, 3, height, width).

    The values become (value / 255 - mean) / deviation; the resize is bilinear and antialiased, as in the published
    preprocessing. size : height, width; statistics : IMAGENET or HALF.
    """
    mean, deviation = (torch.tensor(s, device=where.device)[:, None, None] for s in statistics)
    pixels = torch.as_tensor(np.ascontiguousarray(image), device=where.device).permute(2, 0, 1)[None].float()
    if pixels.shape[-2:] != size:
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return ((pixels / 255 - mean) / deviation).to(where.dtype)


def size_for(shape: tuple[int, ...], shortest: int, longest: int, multiple: int = 1) -> tuple[int, int]:
    """Return (height, width) whose shorter side is ``shortest`` unless the longer would exceed ``longest``."""
    height, width = shape[:2]
    scale = min(shortest / min(height, width), longest / max(height, width))
    high, wide = (max(multiple, multiple * round(side * scale / multiple)) for side in (height, width))
    return high, wide


def where_is(network: Any) -> Placement:
    """The placement of a ready-made network."""
    parameter = next(network.parameters())
    return Placement(str(parameter.device), parameter.dtype)
