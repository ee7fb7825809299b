# SPDX-License-Identifier: Apache-2.0
"""Weights of published models, from a hub on this machine over real HTTP and through the hub's own library."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, Repository, git_hash

pytest.importorskip("huggingface_hub", reason="the extra 'foundation' is not installed")

from fmh_ros.cli.main import main
from fmh_ros.core.errors import (
    DownloadError,
    FileMissingError,
    FmhError,
    LicenceError,
    ModelFileError,
    ModelMissingError,
    ProfileError,
    UsageError,
)
from fmh_ros.core.reconstruction.installed import missing_models
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.models.catalogue import catalogue, find_model, licences_of
from fmh_ros.models.consent import accepted, consent
from fmh_ros.models.pull import PARTS, Source, pull, verify
from fmh_ros.models.store import ModelStore, default_folder

DINO, SAM2, SAM3 = "IDEA-Research/grounding-dino-base", "facebook/sam2.1-hiera-large", "facebook/sam3"
WEIGHTS = bytes(range(256)) * 3000
FILES = {"config.json": b'{"a": 1}\n', "model.safetensors": WEIGHTS, "README.md": b"not needed", "other/x.json": b"{}"}
TOKEN = "hf_" + "a" * 34


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's own: no token, no cache, no models."""
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("FMH_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as made:
        made.repositories[SAM2] = Repository(dict(FILES))
        made.repositories[DINO] = Repository({**FILES, "vocab.txt": b"hand\n"})
        made.repositories[SAM3] = Repository(dict(FILES), token=TOKEN)
        yield made


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


def test_what_is_pulled_is_what_the_catalogue_names_in_the_publishers_layout(hub: Hub, store: ModelStore) -> None:
    manifest = pull(find_model("sam2"), store, Source(endpoint=hub.url))
    root = store.folder / "sam2"
    assert store.find("sam2") == store.path("sam2") == root == manifest.path
    assert sorted(p.name for p in root.rglob("*")) == ["config.json", "model.safetensors"]
    assert (root / "model.safetensors").read_bytes() == WEIGHTS
    assert manifest.revision == COMMIT and manifest.source == SAM2
    assert manifest.size == store.size("sam2") == len(WEIGHTS) + len(FILES["config.json"])
    assert store.manifest("sam2") == manifest, "what was written is read again"
    before = len(hub.requests)
    assert pull(find_model("sam2"), store, Source(endpoint=hub.url)) == manifest
    assert len(hub.requests) == before, "what is there is not asked for again"


def test_a_profile_finds_its_models_once_they_are_there(hub: Hub, store: ModelStore) -> None:
    profile = load_profile("embedded,segmenter=langsam")
    for name in ("sam2", "grounding-dino"):
        assert name in missing_models(profile)
        pull(find_model(name), store, Source(endpoint=hub.url))
        assert name not in missing_models(profile)
    (store.folder / "sam2" / "model.safetensors").write_bytes(WEIGHTS[:-1])
    assert missing_models(profile) == ("sam2",), "a file that was cut does not count"


def test_a_download_that_is_killed_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 24
    hub.repositories[SAM2] = Repository({"model.safetensors": content}, stall={"model.safetensors": 13 << 20})
    command = [sys.executable, "-m", "fmh_ros", "models", "pull", "sam2", "--accept", "--endpoint", hub.url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert hub.stalled.wait(60)
        parts = tmp_path / "models" / "sam2" / PARTS
        while not any(path.stat().st_size for path in parts.iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    (part,) = parts.iterdir()
    there = part.stat().st_size
    store = ModelStore()
    assert store.find("sam2") is None and not (store.root("sam2") / "model.safetensors").exists()
    manifest = pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert (manifest.path / "model.safetensors").read_bytes() == content
    first, second = hub.bytes_sent("model.safetensors")
    assert (first, second) == ("", f"bytes={there}-")


def test_a_mirror_that_sends_something_else_is_found_out(hub: Hub, store: ModelStore) -> None:
    repository = hub.repositories[SAM2]
    repository.wrong = {"model.safetensors": WEIGHTS[::-1]}
    with pytest.raises(DownloadError, match=r"model\.safetensors of sam2 came with the wrong content"):
        pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert store.find("sam2") is None and not (store.root("sam2") / "model.safetensors").exists()
    store.remove("sam2")
    repository.wrong = {"config.json": b'{"a": 2}\n'}
    with pytest.raises(DownloadError, match=r"config\.json"):
        pull(find_model("sam2"), store, Source(endpoint=hub.url))
    repository.wrong = {}
    assert pull(find_model("sam2"), store, Source(endpoint=hub.url)).changed() == ()


def test_verify_finds_a_changed_file_and_pull_replaces_only_that(
    hub: Hub, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert main(["models", "verify", "sam2"]) == 0
    path = store.root("sam2") / "model.safetensors"
    path.write_bytes(WEIGHTS[:-1] + b"!")
    assert store.find("sam2") is not None, "its size is right, and only reading it tells"
    assert main(["models", "verify"]) == ModelFileError.code
    said = capsys.readouterr()
    assert "damaged: model.safetensors" in said.out and "fmh models pull sam2" in said.err
    assert store.find("sam2") is None, "what is known to be damaged is not loaded"
    assert main(["models", "pull", "sam2", "--accept", "--endpoint", hub.url]) == 0
    assert path.read_bytes() == WEIGHTS and verify(find_model("sam2"), store) == ()
    assert hub.bytes_sent("config.json") == [""] and hub.bytes_sent("model.safetensors") == ["", ""]


def test_licences_are_shown_asked_once_and_recorded(
    hub: Hub, store: ModelStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "pull", "sam2", "--endpoint", hub.url]
    assert main(command) == LicenceError.code
    said = capsys.readouterr().err
    assert "Apache-2.0" in said and "https://www.apache.org/licenses/LICENSE-2.0" in said and "Add --accept" in said
    assert not hub.requests and not store.folder.exists(), "nothing happens before"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert main(command) == LicenceError.code
    assert "was refused" in capsys.readouterr().err and not accepted(store) and not hub.requests
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert main(command) == 0
    record = accepted(store)["apache-2.0"]
    assert record["name"] == "Apache-2.0" and record["accepted"].startswith("20")
    assert "Do you accept the Apache-2.0?" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["models", "pull", "grounding-dino", "--endpoint", hub.url]) == 0, "the same licence, once"
    assert "Do you accept" not in capsys.readouterr().err


def test_one_refused_licence_keeps_the_others_that_were_accepted(store: ModelStore) -> None:
    models = [find_model("moge"), find_model("hunyuan3d-2.0")]
    with pytest.raises(LicenceError, match="Tencent"):
        consent(models, store, lambda licence: licence.commercial and not licence.where)
    assert set(accepted(store)) == {"mit", "apache-2.0"}
    with pytest.raises(LicenceError, match=r"Tencent.*--accept") as caught:
        consent(models, store, None)
    assert "MIT" not in str(caught.value)
    consent(models, store, lambda licence: True)
    consent(models, store, None)


@pytest.mark.parametrize(("token", "words"), [(None, ("no token", "set HF_TOKEN")), ("hf_wrong", ("no access",))])
def test_a_gated_model_says_what_to_do(hub: Hub, store: ModelStore, token: str | None, words: tuple[str, ...]) -> None:
    with pytest.raises(LicenceError) as caught:
        pull(find_model("sam3"), store, Source(endpoint=hub.url, token=token))
    assert all(word in str(caught.value) for word in (*words, "https://huggingface.co/facebook/sam3"))
    assert TOKEN not in str(caught.value) and store.find("sam3") is None


def test_the_users_token_opens_a_gated_model(
    hub: Hub, store: ModelStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["models", "pull", "sam3", "--accept", "--endpoint", hub.url]) == 0
    assert store.find("sam3") == store.root("sam3")
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err and TOKEN not in repr(Source(token=TOKEN))
    assert all(TOKEN not in p.read_text() for p in store.folder.rglob("*.json"))
    assert f"Bearer {TOKEN}" in hub.tokens


def test_a_hub_that_is_not_there_and_a_repository_that_is_gone_are_typed(hub: Hub, store: ModelStore) -> None:
    del hub.repositories[SAM2]
    with pytest.raises(DownloadError, match="is not at the hub"):
        pull(find_model("sam2"), store, Source(endpoint=hub.url))
    hub.repositories[SAM2] = Repository({"model.bin": b""})
    with pytest.raises(DownloadError, match=r"has no file model\.safetensors"):
        pull(find_model("sam2"), store, Source(endpoint=hub.url))
    with pytest.raises(DownloadError, match="could not be downloaded"):
        pull(find_model("sam2"), store, Source(endpoint="http://127.0.0.1:9"))


def test_what_fails_does_not_keep_others_from_being_fetched(
    hub: Hub, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    del hub.repositories[SAM2]
    arguments = ["embedded,segmenter=langsam", "--accept", "--endpoint", hub.url]
    assert main(["models", "pull", *arguments]) == DownloadError.code
    assert store.find("grounding-dino") is not None and "grounding-dino" in capsys.readouterr().out


def test_too_small_a_disk_is_said_before(hub: Hub, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmh_ros.models.pull.SPARE", 1 << 62)
    with pytest.raises(DownloadError, match=r"GB free.*FMH_MODELS"):
        pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert [method for method, _, _ in hub.requests] == ["GET"], "only the list of files was asked for"


def test_offline_takes_what_the_hubs_cache_has(store: ModelStore, tmp_path: Path) -> None:
    """A cache as the hub's library makes it: blobs by their hash, snapshots that link to them."""
    import hashlib

    source = Source(offline=True, cache=tmp_path / "cache")
    with pytest.raises(DownloadError, match="not in the hub's cache"):
        pull(find_model("sam2"), store, source)
    base = tmp_path / "cache" / "models--facebook--sam2.1-hiera-large"
    snapshot = base / "snapshots" / COMMIT
    for folder in (snapshot, base / "blobs", base / "refs"):
        folder.mkdir(parents=True)
    (base / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        data = FILES[name]
        blob = base / "blobs" / (hashlib.sha256(data).hexdigest() if "safetensors" in name else git_hash(data))
        blob.write_bytes(data)
        (snapshot / name).symlink_to(blob)
    manifest = pull(find_model("sam2"), store, source)
    assert (manifest.path / "model.safetensors").read_bytes() == WEIGHTS and manifest.revision == COMMIT
    assert not (manifest.path / "model.safetensors").is_symlink(), "the cache may go"
    store.remove("sam2")
    weights = base / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    weights.write_bytes(WEIGHTS[::-1])
    with pytest.raises(DownloadError, match="wrong content"):
        pull(find_model("sam2"), store, source)
    assert weights.exists()


def test_the_users_own_files_are_named_and_stay_where_they_are(
    store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mano v1" / "MANO_RIGHT.pkl"
    mine.parent.mkdir()
    mine.write_bytes(b"hand")
    assert main(["models", "pull", "mano", "--accept"]) == ModelMissingError.code
    assert "mano.is.tue.mpg.de" in capsys.readouterr().err
    assert main(["models", "pull", "mano", "--accept", "--file", f"mano={mine.with_name('no.pkl')}"]) == 10
    assert main(["models", "pull", "mano", "--accept", "--file", f"mano={mine}"]) == 0
    assert store.path("mano") == mine
    capsys.readouterr()
    assert main(["models", "path", "mano"]) == 0 and capsys.readouterr().out.strip() == str(mine)
    mine.write_bytes(b"foot")
    assert main(["models", "verify", "mano"]) == ModelFileError.code
    assert main(["models", "rm", "mano"]) == 0 and mine.exists() and store.find("mano") is None


def test_a_folder_of_the_user_has_the_file_that_back_ends_are_given(store: ModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "wilor"
    (folder / "pretrained_models").mkdir(parents=True)
    with pytest.raises(FileMissingError, match=r"detector\.pt"):
        pull(find_model("wilor-detector"), store, Source(files={"wilor-detector": folder}))
    (folder / "pretrained_models" / "detector.pt").write_bytes(b"x")
    pull(find_model("wilor-detector"), store, Source(files={"wilor-detector": folder}))
    assert store.path("wilor-detector") == folder / "pretrained_models" / "detector.pt"


def test_rm_frees_the_disk_and_path_says_what_is_not_there(
    hub: Hub, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert main(["models", "rm", "embedded,segmenter=sam2"]) == 0
    assert "sam2  removed" in capsys.readouterr().out and not store.root("sam2").exists()
    assert main(["models", "rm", "sam2"]) == 0
    assert main(["models", "path", "sam2"]) == ModelMissingError.code
    assert "Run: fmh models pull sam2" in capsys.readouterr().err
    assert main(["models", "path"]) == 0 and capsys.readouterr().out.strip() == str(default_folder())


def test_list_says_per_profile_what_it_needs_and_on_what_terms(
    hub: Hub, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(find_model("sam2"), store, Source(endpoint=hub.url))
    assert main(["models", "list", "h100"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    by_model = {(row[0], row[2]): " ".join(row) for row in rows if len(row) > 4}
    assert by_model[("segmenter", "sam2")].endswith("everywhere yes")
    assert by_model[("generator", "hunyuan3d-2.0")].count("not in the EU, the UK and South Korea") == 1
    assert by_model[("hand_model", "mano")].endswith("no, yours to get")
    assert " no everywhere no" in by_model[("completer", "flux-kontext")], "not for products, and not there"
    (store.root("sam2") / "config.json").unlink()
    assert main(["models", "list"]) == 0
    said = capsys.readouterr().out
    assert "incomplete" in said and "nothing to fetch" in said and str(store.folder) in said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pull", "sam9"], ProfileError),
        (["path", "sam9"], UsageError),
        (["pull", "sam2", "--file", "mano"], UsageError),
    ],
)
def test_names_that_do_not_exist_are_refused(arguments: list[str], error: type[FmhError]) -> None:
    assert main(["models", *arguments]) == error.code


def test_a_broken_manifest_is_typed(store: ModelStore) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "sam2.json").write_text('{"files": 3}')
    with pytest.raises(ModelFileError, match="fmh models rm sam2"):
        store.find("sam2")
    assert main(["models", "rm", "sam2"]) == 0, "as the message says"
    assert store.find("sam2") is None


def test_the_catalogue_says_of_each_model_where_it_comes_from_and_on_what_terms() -> None:
    for model in catalogue().values():
        assert bool(model.repo) != bool(model.supply), model.id
        assert bool(model.files) == bool(model.repo) and model.size_gb > 0 and model.licences
        assert not model.page or model.page.startswith("https://huggingface.co/")
    assert all(licence.url.startswith("https://") for licence in licences_of(catalogue().values()))
    assert find_model("wilor").page == "https://huggingface.co/spaces/rolpotamias/WiLoR"
    restricted = {"mano", "hamer", "wilor", "wilor-detector", "flux-kontext", "depth-pro"}
    assert {m.id for m in catalogue().values() if not m.commercial} == restricted | {"vitpose-hand"}
    assert {m.id for m in catalogue().values() if m.where != "everywhere"} == {
        name for name in catalogue() if name.startswith("hunyuan")
    }


def test_models_need_no_torch_and_the_hub_only_for_pulling(store: ModelStore) -> None:
    code = "import sys\nfor name in ('torch', 'huggingface_hub', 'numpy'): sys.modules[name] = None\n"
    code += "import fmh_ros.models.pull, fmh_ros.models.consent, fmh_ros.models.store\n"
    code += "from fmh_ros.models.catalogue import catalogue; catalogue()\n"
    code += "from fmh_ros.models.pull import *; from fmh_ros.models.catalogue import find_model\n"
    code += "from fmh_ros.models.store import ModelStore\n"
    code += "try: pull(find_model('sam2'), ModelStore(), Source())\n"
    code += "except Exception as error: print(type(error).__name__, error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ModelMissingError" in done.stdout and "pip install 'fmh-ros[foundation]'" in done.stdout
