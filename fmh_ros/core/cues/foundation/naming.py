# SPDX-License-Identifier: Apache-2.0
"""What the hand holds, in words: by a vision-language model on this machine, or by Gemini with the user's key.

``make_qwen_namer``: model ``qwen-vl`` (Qwen/Qwen2.5-VL-7B-Instruct, Qwen2.5-VL-32B-Instruct or Qwen3-VL-*-Instruct,
Apache-2.0; the 3B and 72B of 2.5 have other licences). Options: dtype. ``make_gemini_namer``: no model; options: key,
or the environment variable GEMINI_API_KEY; model, endpoint, timeout_s. The image leaves this machine, under Google's
terms. The user's own words need neither: they are in the prompt.
"""

from __future__ import annotations

import base64
import http.client
import inspect
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.foundation.qwen_inputs import QwenInputs
from fmh_ros.core.cues.mask_inputs import hand_size_px
from fmh_ros.core.cues.squares import Square, cut
from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.errors import RemoteModelError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.pretrained import load_helper, load_network, local_path, placement, where_is

#: Side of the crop that is shown over the hand's size, and in pixels.
CROP_FACTOR, CROP_PIXELS = 5.0, 448
#: Longer names make finders miss and do not fit a text encoder of 77 tokens.
MOST_WORDS = 6
QUESTION = (
    "Which object does the hand in the middle of this picture hold? Answer with two to four words that name the object "
    "and its colour or kind, and nothing about the person. If it holds nothing, answer: nothing."
)
GEMINI_ENDPOINT = "https://generativelanguage.googleapis.com/v1beta"
GEMINI_MODEL = "gemini-2.5-flash-lite"
KEY_VARIABLE = "GEMINI_API_KEY"
_NOTHING = {"", "nothing", "none", "no object", "unknown", "unclear", "empty", "hand"}
_LEAD = re.compile(r"^.*\b(?:holding|holds|is|appears to be|grasping|gripping|it's|this is)\b\s+", re.IGNORECASE)


def clean_name(answer: str) -> str:
    """Reduce a model's answer to a name in lower case of at most MOST_WORDS words; "" when it names nothing."""
    line = next((line for line in answer.strip().splitlines() if line.strip()), "")
    line = re.split(r"[.;:!?](?:\s|$)|[(]", line.strip(" \"'*`.\t"))[0]
    line = _LEAD.sub("", line).strip(" \"'*`,").lower()
    line = re.sub(r"^(a|an|the|some)\s+", "", line)
    words = [word.strip("'-.") for word in re.sub(r"[^\w\s'.-]", " ", line).split()]
    name = " ".join([word for word in words if word][:MOST_WORDS])
    return "" if name in _NOTHING else name


def show(frame: Frame, hand: HandObservation) -> NDArray[np.uint8]:
    """Cut out the picture that is asked about: (CROP_PIXELS, CROP_PIXELS, 3) RGB with the hand in its middle."""
    low, high = hand.keypoints_2d.min(0), hand.keypoints_2d.max(0)
    square = Square((low + high) / 2, CROP_FACTOR * hand_size_px(hand.keypoints_2d))
    return cut(frame.image, square.to_frame(CROP_PIXELS), CROP_PIXELS)[0]


class QwenNamer:
    """`ObjectNamer` by a Qwen vision-language model of transformers: 2-VL, 2.5-VL or 3-VL."""

    def __init__(self, network: Any, tokenizer: Any, image_processor: Any, most_tokens: int = 16) -> None:
        self.network, self.tokenizer, self.image_processor = network, tokenizer, image_processor
        self.most_tokens = most_tokens
        self.name = str(network.config.model_type).replace("_", "-")

    def name_object(self, frame: Frame, hand: HandObservation) -> str:
        """Ask greedily, so that the same picture has the same name."""
        return clean_name(self.answer(show(frame, hand), QUESTION))

    def answer(self, image: NDArray[np.uint8], question: str) -> str:
        """Return what the model says to a question about an image (H, W, 3) RGB."""
        inputs = self.inputs(image, question)
        with torch.inference_mode():
            tokens = self.network.generate(**inputs, max_new_tokens=self.most_tokens, do_sample=False)
        said = tokens[0, inputs["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(said, skip_special_tokens=True))

    def inputs(self, image: NDArray[np.uint8], question: str) -> dict[str, torch.Tensor]:
        """Build the model's published chat: one image, as so many placeholders as it has patches after merging."""
        where = where_is(self.network)
        pictured = "<|vision_start|><|image_pad|><|vision_end|>"
        chat = f"<|im_start|>user\n{pictured}{question}<|im_end|>\n<|im_start|>assistant\n"
        inputs = dict(QwenInputs(self.image_processor, self.tokenizer)([chat], [image]))
        inputs["pixel_values"] = inputs["pixel_values"].to(where.dtype)
        # Newer versions want to be told which tokens are picture; older ones look for themselves.
        if "mm_token_type_ids" in inspect.signature(self.network.forward).parameters:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.network.config.image_token_id).int()
        return {key: value.to(where.device) for key, value in inputs.items()}


class GeminiNamer:
    """`ObjectNamer` by Google's service; one request for each name, no retries."""

    name = "gemini"

    def __init__(
        self, key: str, model: str = GEMINI_MODEL, endpoint: str = GEMINI_ENDPOINT, timeout_s: float = 20.0
    ) -> None:
        self._key, self.model, self.endpoint, self.timeout_s = key, model, endpoint, timeout_s

    def name_object(self, frame: Frame, hand: HandObservation) -> str:
        """Ask the service. Raises RemoteModelError."""
        return clean_name(self.answer(show(frame, hand), QUESTION))

    def answer(self, image: NDArray[np.uint8], question: str) -> str:
        """Return what the service says about an image (H, W, 3) RGB. Raises RemoteModelError."""
        done, data = cv2.imencode(".jpg", image[..., ::-1])
        assert done
        picture = {"mime_type": "image/jpeg", "data": base64.b64encode(data.tobytes()).decode()}
        body = {
            "contents": [{"parts": [{"inline_data": picture}, {"text": question}]}],
            "generationConfig": {"temperature": 0, "maxOutputTokens": 64},
        }
        request = urllib.request.Request(
            f"{self.endpoint}/models/{self.model}:generateContent",
            json.dumps(body).encode(),
            # In a header, for addresses end up in logs.
            {"Content-Type": "application/json", "x-goog-api-key": self._key},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                said = json.loads(response.read())
            parts = said["candidates"][0]["content"]["parts"]
            return "".join(part.get("text", "") for part in parts)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise RemoteModelError(
                f"Gemini cannot be reached ({getattr(error, 'reason', error)})",
                expected="a network connection",
                change="Name the object yourself, or use a profile with a model on this machine",
            ) from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise RemoteModelError("Gemini's answer holds no text", change="Name the object yourself") from error


def _refusal(error: urllib.error.HTTPError) -> RemoteModelError:
    """Say why the service refused, by its status and its own words."""
    try:
        said = str(json.loads(error.read())["error"]["message"]).splitlines()[0][:200]
    except (ValueError, KeyError, TypeError, IndexError, OSError):
        said = str(error.reason)
    changes = {
        429: "Wait, or raise the quota of the key; or name the object yourself",
        404: "Give the name of a model that your key can use",
    }
    key = error.code in (401, 403) or (error.code == 400 and "key" in said.lower())
    change = f"Set {KEY_VARIABLE} to a valid key, or name the object yourself" if key else changes.get(error.code, "")
    what = "the key" if key else "the request"
    return RemoteModelError(
        f"Gemini refused {what} ({error.code}: {said})", change=change or "Name the object yourself, or try again later"
    )


def make_qwen_namer(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> QwenNamer:
    """Load a Qwen vision-language model. Raises ModelMissingError, ModelFileError or ProfileError."""
    folder = local_path(models, "qwen-vl")
    network = load_network("transformers", "AutoModelForImageTextToText", folder, placement(options, device))
    tokenizer = load_helper("transformers", "AutoTokenizer", folder)
    return QwenNamer(network, tokenizer, load_helper("transformers", "Qwen2VLImageProcessor", folder))


def make_gemini_namer(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> GeminiNamer:
    """Make the client; nothing is sent before the first name. Raises RemoteModelError without a key."""
    key = str(options.get("key") or os.environ.get(KEY_VARIABLE, ""))
    if not key:
        raise RemoteModelError(
            "There is no key for Gemini", change=f"Set {KEY_VARIABLE}, or choose another way to name objects"
        )
    chosen = {name: options[name] for name in ("model", "endpoint", "timeout_s") if name in options}
    return GeminiNamer(key, **chosen)
