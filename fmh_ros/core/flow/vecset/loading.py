# SPDX-License-Identifier: Apache-2.0
"""What loading has in common, whoever published the files: networks without memory, whole checkpoints, options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fmh_ros.core.errors import ModelFileError, ModelMissingError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Options = TypeVar("Options")


def network_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of an option: "auto" is bfloat16 on a GPU and float32 on a CPU."""
    return DTYPES.get(name, torch.float32 if device.type == "cpu" else torch.bfloat16)


def library_missing(name: str, purpose: str) -> ModelMissingError:
    """The error for an optional library that is not installed."""
    return ModelMissingError(
        f"The library {name} is not installed",
        expected=f"it, {purpose}",
        change="Run `pip install 'fmh-ros[foundation]'`",
    )


@contextlib.contextmanager
def empty_weights(wanted: bool = True) -> Iterator[None]:
    """Make parameters without memory, since weights follow; buffers are made as they are."""
    if not wanted:
        yield
        return
    try:
        from accelerate import init_empty_weights
    except ImportError as error:
        raise library_missing("accelerate", "to load large checkpoints") from error
    with init_empty_weights(include_buffers=False):
        yield


def fill(module: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load weights, all of them and nothing else; none leave the module as it was made."""
    if not weights:
        return
    missing, unexpected = module.load_state_dict(weights, strict=False, assign=True)
    check_names(what, missing, unexpected)


def check_names(what: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise ModelFileError when weights are missing or unknown."""
    missing, unexpected = list(missing), list(unexpected)
    if missing or unexpected:
        some = ", ".join(sorted([*missing, *unexpected])[:4])
        raise ModelFileError(
            f"The weights of {what} do not fit: {len(missing)} missing, {len(unexpected)} unknown ({some})",
            expected="weights and config of the same variant",
            change="Run `fmh models verify`, or choose the variant that the files are of",
        )


def make_image_encoder(config: Mapping[str, Any], weights: dict[str, Tensor]) -> Any:
    """Build a DINOv2. Names of its weights changed between releases of transformers, which translates them."""
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError as error:
        raise library_missing("transformers", "for the image encoder") from error
    made = Dinov2Config.from_dict(dict(config))
    if not weights:
        return Dinov2Model(made)
    kind: Any = Dinov2Model
    encoder, report = kind.from_pretrained(None, config=made, state_dict=weights, output_loading_info=True)
    check_names("the image encoder", report["missing_keys"], report["unexpected_keys"])
    return encoder


def parse_options(kind: type[Options], options: Mapping[str, Any], what: str) -> Options:
    """Make an options dataclass of a profile's mapping. Raises UsageError for a name that it does not have."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if not set(options) <= known:
        wrong = ", ".join(sorted(set(options) - known))
        raise UsageError(f"{what} has no option {wrong}", expected=", ".join(sorted(known)))
    return kind(**options)


def model_folder(models: Mapping[str, Path], name: str) -> Path:
    """The folder of a model of the catalogue. Raises ModelMissingError."""
    if name not in models:
        raise ModelMissingError(
            f"The profile gives no folder for the model {name}",
            expected="one of the variants that it lists",
            change="Run `fmh models pull` with the profile's name",
        )
    return models[name]
