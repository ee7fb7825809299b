# SPDX-License-Identifier: Apache-2.0
"""Pictures changed by an instruction, through pipelines of diffusers.

``kontext_editor``: model ``flux-kontext`` (black-forest-labs/FLUX.1-Kontext-dev, non-commercial, gated).
``qwen_editor``: model ``qwen-image-edit`` (Qwen/Qwen-Image-Edit-2511 or -2509, Apache-2.0). ``klein_editor``: model
``flux2-klein`` (black-forest-labs/FLUX.2-klein-4B, Apache-2.0; the 9B is not for products). Options: dtype; steps;
side, pixels; offload ("none", "model" or "sequential", see diffusers).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from fmh_ros.core.cues.foundation.qwen_inputs import QwenInputs
from fmh_ros.core.errors import ModelFileError, ModelMissingError, ProfileError
from fmh_ros.core.pretrained import Placement, library_class, load_helper, local_path, placement, shared

#: Side of the picture that the editors were trained on, pixels.
SIDE = 1024


class ImageEditor(Protocol):
    """Changes a picture as told."""

    name: str

    @property
    def side(self) -> int:
        """Side of the square picture that it likes best, pixels."""
        ...

    def edit(self, image: NDArray[np.uint8], instruction: str, seed: int) -> NDArray[np.uint8]:
        """Return the changed picture, of the size of the given one (S, S, 3) RGB; the same for the same seed."""
        ...


class DiffusersEditor:
    """`ImageEditor` by a pipeline of diffusers.

    pipeline : called with image, prompt, generator and ``arguments``; returns pictures as arrays in 0..1.
    arguments : the pipeline's own keywords, from ``kontext_arguments`` and its like.
    """

    def __init__(self, pipeline: Any, name: str, arguments: Mapping[str, Any], side: int = SIDE) -> None:
        self.pipeline, self.name, self.arguments = pipeline, name, dict(arguments)
        self._side = side

    @property
    def side(self) -> int:
        """Side of the picture, pixels."""
        return self._side

    def edit(self, image: NDArray[np.uint8], instruction: str, seed: int) -> NDArray[np.uint8]:
        """Run the pipeline once; noise is drawn on the CPU, so that a seed means the same on every device."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.inference_mode():
            answer = self.pipeline(
                image=picture, prompt=instruction, generator=generator, output_type="np", **self.arguments
            )
        made = np.nan_to_num(np.asarray(answer.images[0], np.float32))
        pixels = np.round(np.clip(made, 0, 1) * 255).astype(np.uint8)
        if pixels.shape != image.shape:
            how = cv2.INTER_AREA if pixels.shape[0] > image.shape[0] else cv2.INTER_CUBIC
            pixels = np.asarray(cv2.resize(pixels, image.shape[1::-1], interpolation=how), np.uint8)
        return pixels


def kontext_arguments(steps: int = 28, side: int = SIDE) -> dict[str, Any]:
    """FLUX.1 Kontext: guidance is distilled; without a true scale above 1 a negative prompt would do nothing."""
    return {
        "num_inference_steps": steps,
        "guidance_scale": 2.5,
        "height": side,
        "width": side,
        "max_area": side * side,
        # Its list of trained sizes holds the full square only.
        "_auto_resize": side == SIDE,
    }


def qwen_edit_arguments(steps: int = 40) -> dict[str, Any]:
    """Qwen-Image-Edit: true classifier-free guidance against an empty prompt; it chooses the size itself."""
    return {"num_inference_steps": steps, "true_cfg_scale": 4.0, "negative_prompt": " "}


def klein_arguments(steps: int = 4, side: int = SIDE) -> dict[str, Any]:
    """FLUX.2 klein: distilled to few steps, without guidance."""
    return {"num_inference_steps": steps, "guidance_scale": 1.0, "height": side, "width": side}


def tell_pictures(encoder: Any) -> None:
    """Have a Qwen vision-language encoder told which tokens are picture, as transformers 5 wants to know.

    Without it the picture's patches are placed in a line and not in rows, and no error says so; diffusers does not
    pass it.
    """
    if "mm_token_type_ids" not in inspect.signature(encoder.forward).parameters:
        return

    def add(module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs.get("pixel_values") is not None and inputs.get("mm_token_type_ids") is None:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == module.config.image_token_id).int()
        return args, inputs

    encoder.register_forward_pre_hook(add, with_kwargs=True)


def load_pipeline(name: str, folder: Path, where: Placement, offload: str = "none") -> Any:
    """Load a pipeline from its folder. Raises ModelMissingError, ModelFileError or ProfileError.

    The processor of Qwen's pipelines wants torchvision for videos; ours stands in for it.
    """
    return shared(("diffusers", name, folder, where, offload), lambda: _load_pipeline(name, folder, where, offload))


def _load_pipeline(name: str, folder: Path, where: Placement, offload: str) -> Any:
    kind = library_class("diffusers", name)
    if offload not in ("none", "model", "sequential"):
        raise ProfileError(f"There is no offload {offload!r}", expected="none, model or sequential")
    if not folder.is_dir():
        raise ModelMissingError(
            f"There is no folder {folder} with {name}", change="Run fmh models pull with the profile"
        )
    ours: dict[str, Any] = {"processor": None} if (folder / "processor").is_dir() else {}
    try:
        pipeline = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=where.dtype, **ours
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFileError(
            f"{folder} cannot be loaded as {name}: {str(error).splitlines()[0][:200] if str(error) else type(error)}",
            expected="the publisher's folder, complete and unchanged",
            change="Run fmh models verify, then fmh models pull",
        ) from error
    if ours:
        images = load_helper("transformers", "Qwen2VLImageProcessor", folder / "processor")
        pipeline.register_modules(processor=QwenInputs(images, pipeline.tokenizer))
        tell_pictures(pipeline.text_encoder)
    pipeline.set_progress_bar_config(disable=True)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=where.device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=where.device)
    else:
        pipeline.to(where.device)
    return pipeline


def _make(
    model: str, pipeline: str, models: Mapping[str, Path], options: Mapping[str, Any], device: str
) -> Callable[[str, Mapping[str, Any]], DiffusersEditor]:
    loaded = load_pipeline(
        pipeline, local_path(models, model), placement(options, device), str(options.get("offload", "none"))
    )
    return lambda name, arguments: DiffusersEditor(loaded, name, arguments, int(options.get("side", SIDE)))


def kontext_editor(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> DiffusersEditor:
    """Load FLUX.1 Kontext."""
    made = _make("flux-kontext", "FluxKontextPipeline", models, options, device)
    return made("flux-kontext", kontext_arguments(int(options.get("steps", 28)), int(options.get("side", SIDE))))


def qwen_editor(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> DiffusersEditor:
    """Load Qwen-Image-Edit: option ``pipeline`` is QwenImageEditPlusPipeline (2509, 2511) or QwenImageEditPipeline."""
    pipeline = str(options.get("pipeline", "QwenImageEditPlusPipeline"))
    made = _make("qwen-image-edit", pipeline, models, options, device)
    return made("qwen-image-edit", qwen_edit_arguments(int(options.get("steps", 40))))


def klein_editor(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> DiffusersEditor:
    """Load FLUX.2 klein."""
    made = _make("flux2-klein", "Flux2KleinPipeline", models, options, device)
    return made("flux2-klein", klein_arguments(int(options.get("steps", 4)), int(options.get("side", SIDE))))
