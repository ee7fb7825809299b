# SPDX-License-Identifier: Apache-2.0
"""What loading a generator has in common, whoever published it: networks without memory, whole checkpoints, options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from fmh_ros.core.errors import ModelFileError, UsageError
from fmh_ros.core.pretrained import library, library_class

Options = TypeVar("Options")


@contextlib.contextmanager
def empty_weights(wanted: bool = True) -> Iterator[None]:
    """Make parameters without memory, since weights follow; buffers are made as they are."""
    if not wanted:
        yield
        return
    with library("accelerate").init_empty_weights(include_buffers=False):
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
    made = library_class("transformers", "Dinov2Config").from_dict(dict(config))
    kind = library_class("transformers", "Dinov2Model")
    if not weights:
        return kind(made)
    encoder, report = kind.from_pretrained(None, config=made, state_dict=weights, output_loading_info=True)
    check_names("the image encoder", report["missing_keys"], report["unexpected_keys"])
    return encoder


def parse_options(kind: type[Options], options: Mapping[str, Any], what: str) -> Options:
    """Make an options dataclass of a profile's mapping. Raises UsageError for a name that it does not have, and for a
    text that is none of those an option may be."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if not set(options) <= known:
        wrong = ", ".join(sorted(set(options) - known))
        raise UsageError(f"{what} has no option {wrong}", expected=", ".join(sorted(known)))
    for name, annotation in get_type_hints(kind).items():
        allowed = get_args(annotation) if get_origin(annotation) is Literal else ()
        if allowed and name in options and options[name] not in allowed:
            seen = f"{what} has the option {name} at {options[name]!r}"
            raise UsageError(seen, expected=f"one of {', '.join(allowed)}")
    return kind(**options)
