# SPDX-License-Identifier: Apache-2.0
"""Inputs of Qwen's vision-language models, without torchvision, which their own processor needs for videos."""

from __future__ import annotations

from typing import Any

_PLACEHOLDER = "<|image_pad|>"


class QwenInputs:
    """Stands in for ``Qwen2VLProcessor``: called in the same way, it returns the same tensors for pictures and texts.

    image_processor : a ``Qwen2VLImageProcessor``; tokenizer : the model's.
    """

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(self, text: list[str], images: Any, padding: bool = True, return_tensors: str = "pt") -> Any:
        """Return input_ids, attention_mask, pixel_values and image_grid_thw, with ``to(device)``.

        Each text's placeholders are repeated as often as its pictures have patches after merging.
        """
        from transformers import BatchFeature

        seen = self.image_processor(images=images, return_tensors=return_tensors)
        merged = int(self.image_processor.merge_size) ** 2
        counts = iter([int(grid.prod()) // merged for grid in seen["image_grid_thw"]])
        expanded = []
        for one in text:
            first, *rest = one.split(_PLACEHOLDER)
            expanded.append(first + "".join(_PLACEHOLDER * next(counts) + part for part in rest))
        words = self.tokenizer(expanded, padding=padding, return_tensors=return_tensors)
        return BatchFeature({"input_ids": words["input_ids"], "attention_mask": words["attention_mask"], **seen})
