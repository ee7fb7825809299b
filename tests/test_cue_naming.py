# SPDX-License-Identifier: Apache-2.0
"""Names of what is held: Qwen's real classes at tiny sizes, Gemini's protocol against a server on this machine."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_cues as tiny
import torch

pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")

from fmh_ros.core.cues.foundation.naming import (
    CROP_PIXELS,
    GeminiNamer,
    QwenNamer,
    clean_name,
    make_gemini_namer,
    make_qwen_namer,
    show,
)
from fmh_ros.core.errors import RemoteModelError


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Red mug.", "red mug"),
        ("  **A white coffee cup**\nIt is held by ...", "white coffee cup"),
        ("The hand is holding a yellow drill.", "yellow drill"),
        ("The object is an electric toothbrush", "electric toothbrush"),
        ("Nothing.", ""),
        ("", ""),
        ("the\t'Spam' can, 0.5 l", "spam can 0.5 l"),
        ("a very long and winding name of some small thing", "very long and winding name of"),
    ],
)
def test_answers_are_reduced_to_short_names(answer: str, name: str) -> None:
    assert clean_name(answer) == name


def test_the_picture_that_is_asked_about_has_the_hand_in_its_middle() -> None:
    scene = tiny.painted_scene()
    picture = show(scene.frame, scene.hand)
    assert picture.shape == (CROP_PIXELS, CROP_PIXELS, 3)
    middle = picture[CROP_PIXELS // 2 - 30 : CROP_PIXELS // 2 + 30, CROP_PIXELS // 2 - 30 : CROP_PIXELS // 2 + 30]
    assert (np.abs(middle.astype(int) - tiny.SKIN).max(-1) < 30).mean() > 0.5


@pytest.mark.parametrize("generation", ["2.5", "3"])
def test_qwen_is_asked_in_its_own_chat_about_this_picture(generation: str) -> None:
    namer = QwenNamer(tiny.tiny_qwen(generation), tiny.tiny_qwen_words(), tiny.tiny_qwen_images(), most_tokens=4)
    scene = tiny.painted_scene()
    inputs = namer.inputs(show(scene.frame, scene.hand), "Which object")
    ids = tiny.tiny_qwen_words().convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    patches = int(inputs["image_grid_thw"].prod()) // 4
    assert ids == [
        "<|im_start|>", "user", "<|vision_start|>", *["<|image_pad|>"] * patches, "<|vision_end|>", "Which", "object",
        "<|im_end|>", "<|im_start|>", "assistant",
    ]  # fmt: skip
    with torch.no_grad():
        logits = namer.network(**inputs).logits[0, -1]
        inverted = namer.inputs(255 - show(scene.frame, scene.hand), "Which object")
        assert (namer.network(**inverted).logits[0, -1] - logits).abs().max() > 1e-5  # it looks
    first = namer.network.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1]
    assert first == logits.argmax()
    answers = {namer.answer(show(scene.frame, scene.hand), "Which object") for _ in range(2)}
    assert len(answers) == 1


def test_qwen_loads_from_its_folder(tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_qwen(), tmp_path / "qwen")
    tiny.tiny_qwen_words().save_pretrained(folder)
    tiny.tiny_qwen_images().save_pretrained(folder)
    namer = make_qwen_namer({"qwen-vl": folder}, {"dtype": "bfloat16"}, "cpu")
    scene = tiny.painted_scene()
    assert namer.name == "qwen2-5-vl"
    assert next(namer.network.parameters()).dtype is torch.bfloat16
    original = copy.deepcopy(tiny.tiny_qwen()).to(torch.bfloat16)
    inputs = namer.inputs(show(scene.frame, scene.hand), "Which object")
    with torch.no_grad():
        torch.testing.assert_close(namer.network(**inputs).logits, original(**inputs).logits, rtol=0, atol=0)


class Service(HTTPServer):
    """Answers as Gemini does: with a name, or with what it is told to refuse with."""

    status, answer = 200, "A red box."
    body: Any = None
    #: Bytes that are promised and never sent.
    withheld = 0
    asked: list[tuple[str, dict[str, str], dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), asked))
        body = self.server.body or {"candidates": [{"content": {"parts": [{"text": self.server.answer}]}}]}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data) + self.server.withheld))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client(service: Service) -> GeminiNamer:
    options = {"key": "secret-key", "endpoint": f"http://127.0.0.1:{service.server_port}/v1beta", "timeout_s": 5.0}
    return make_gemini_namer({}, options, "cpu")


def test_gemini_is_sent_the_picture_and_the_key_in_a_header(service: Service) -> None:
    scene = tiny.painted_scene()
    assert client(service).name_object(scene.frame, scene.hand) == "red box"
    path, headers, asked = service.asked[0]
    assert path == "/v1beta/models/gemini-2.5-flash-lite:generateContent" and "secret-key" not in path
    assert {key.lower(): value for key, value in headers.items()}["x-goog-api-key"] == "secret-key"
    picture, question = asked["contents"][0]["parts"]
    assert "hold" in question["text"]
    data = np.frombuffer(base64.b64decode(picture["inline_data"]["data"]), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - show(scene.frame, scene.hand)).mean() < 4  # RGB, but for JPEG


REFUSALS = {
    "wrong key": (400, "API key not valid. Please pass a valid API key.", "GEMINI_API_KEY"),
    "no right": (403, "The caller does not have permission", "GEMINI_API_KEY"),
    "quota": (429, "Resource has been exhausted", "Wait"),
    "no such model": (404, "models/x is not found", "name of a model"),
    "broken": (500, "Internal error", "later"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_why_and_what_to_do_but_not_the_key(service: Service, case: str) -> None:
    status, words, advice = REFUSALS[case]
    service.status, service.body = status, {"error": {"code": status, "message": words}}
    scene = tiny.painted_scene()
    with pytest.raises(RemoteModelError, match=advice) as raised:
        client(service).name_object(scene.frame, scene.hand)
    assert words.rstrip(".") in str(raised.value) and "secret-key" not in str(raised.value)


def test_no_network_no_key_and_no_answer_are_told_apart(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tiny.painted_scene()
    for body in (b"not json", {"candidates": []}, {"candidates": [{"finishReason": "SAFETY"}]}):
        service.body = body
        with pytest.raises(RemoteModelError, match="no text"):
            client(service).name_object(scene.frame, scene.hand)
    service.body, service.withheld = None, 100
    with pytest.raises(RemoteModelError, match="cannot be reached"):
        client(service).name_object(scene.frame, scene.hand)
    with pytest.raises(RemoteModelError, match="cannot be reached"):
        GeminiNamer("key", endpoint="http://127.0.0.1:9/v1beta", timeout_s=2).name_object(scene.frame, scene.hand)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(RemoteModelError, match="no key"):
        make_gemini_namer({}, {}, "cpu")
    monkeypatch.setenv("GEMINI_API_KEY", "from-outside")
    assert make_gemini_namer({}, {"model": "gemini-3"}, "cpu").model == "gemini-3"
