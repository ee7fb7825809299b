# SPDX-License-Identifier: Apache-2.0
"""Profiles: their files and changes, what is wrong with them, and what they load, at configure time and once."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny_cues as tiny
import torch
import yaml
from tiny_triposg import random_networks, save_published

from fmh_ros.cli.main import main
from fmh_ros.core import backends
from fmh_ros.core.backends import BACKENDS, INSTALL, STAGES, find_backend
from fmh_ros.core.cues.foundation import points
from fmh_ros.core.cues.foundation.masks import PromptedSegmenter
from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.errors import ModelMissingError, ProfileError, UnsupportedPromptError
from fmh_ros.core.flow.hunyuan.checkpoint import FOLDERS
from fmh_ros.core.flow.hunyuan.model import MODEL_IDS, VAE_IDS, HunyuanOptions
from fmh_ros.core.flow.triposg import model as triposg
from fmh_ros.core.flow.triposg.model import CONFIGS, WEIGHTS, TripoSGOptions
from fmh_ros.core.frame.frame import ObjectPrompt
from fmh_ros.core.reconstruction import loading
from fmh_ros.core.reconstruction.installed import check_installed, missing_models
from fmh_ros.core.reconstruction.loading import ModelCache, choose_device
from fmh_ros.core.reconstruction.profile import (
    FOLDER,
    PROFILES,
    check_readable,
    load_profile,
    load_stages,
    profile_text,
)
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.residency import Residency
from fmh_ros.engines.local import LocalEngine
from fmh_ros.models.catalogue import catalogue, find_model
from fmh_ros.models.pull import Source, _wanted, pull
from fmh_ros.models.pull import _Remote as Remote
from fmh_ros.models.store import ModelStore

PATIENCE = 300.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models; and no time is spent on finding out which type is quicker."""
    monkeypatch.setattr("fmh_ros.core.flow.embedded.model.bfloat16_is_faster", lambda module, example: False)
    monkeypatch.setenv("FMH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real networks of the published kinds, tiny, in the publishers' layouts."""
    root = tmp_path_factory.mktemp("weights")
    return {
        "sam2": tiny.save(tiny.tiny_sam2(), root / "sam2"),
        "depth-anything": tiny.save(tiny.tiny_depth_anything(), root / "depth-anything"),
    }


@pytest.fixture
def store(weights: dict[str, Path], folder: Path) -> ModelStore:
    made = ModelStore()
    for name in weights:
        pull(find_model(name), made, Source(files=weights))
    return made


# Files and changes


@pytest.mark.parametrize("name", PROFILES)
def test_each_shipped_profile_names_an_existing_back_end_for_every_stage(name: str) -> None:
    profile = load_profile(name)
    said = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert list(profile.stages) == list(STAGES) and set(said["stages"]) == set(STAGES)
    assert all(choice.backend.stage == stage for stage, choice in profile.stages.items())
    assert profile.text == name and profile.summary == said["summary"]
    assert set(profile.models) <= set(catalogue())


def test_the_profiles_are_those_of_the_plan_and_the_default_comes_first() -> None:
    assert PROFILES == ("embedded", "consumer", "h100", "h100_fast", "open")
    assert load_profile("embedded").models == ()
    assert all(find_model(model).commercial for model in load_profile("open").models)
    assert all(find_model(model).where == "everywhere" for model in load_profile("open").models)
    assert not any(load_profile("open").stages[stage].backend.name == "mano" for stage in STAGES)
    assert load_profile("h100").preset == "paper" and load_profile("h100").stages["completer"].backend.name == "kontext"


def test_anything_can_be_changed_behind_the_name() -> None:
    profile = load_profile("h100,generator=triposg,generator.mesh_resolution=384, device=cpu ,memory_gib=20")
    generator = profile.stages["generator"]
    assert generator.backend.name == "triposg" and dict(generator.options) == {"mesh_resolution": 384}
    assert (profile.device, profile.memory_gib, profile.preset) == ("cpu", 20.0, "paper")
    assert "triposg" in profile.models and "hunyuan3d-2.0" not in profile.models
    assert profile.text == "h100,generator=triposg,generator.mesh_resolution=384,device=cpu,memory_gib=20"
    assert load_profile(profile.text) == profile
    assert load_profile("h100").changed(["generator=triposg"]) == load_profile("h100,generator=triposg")
    assert profile_text("h100", ["", " generator=triposg "]) == "h100,generator=triposg"


def test_a_swapped_back_end_does_not_inherit_the_options_of_the_one_before() -> None:
    fast = load_profile("h100_fast")
    assert "fast_vae" in fast.stages["generator"].options
    assert not load_profile("h100_fast,generator=hunyuan3d-2.1").stages["generator"].options
    assert load_profile("h100_fast,generator.fast_vae=false").models == tuple(
        model for model in fast.models if model != "hunyuan3d-vae-mini-turbo"
    ), "the option alone needs that model"


def test_a_users_file_may_leave_stages_to_the_embedded_models(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: paper\nstages: {segmenter: {backend: langsam, box_score: 1}}\n")
    profile = load_profile(f"{path},device=cpu")
    options = dict(profile.stages["segmenter"].options)
    assert options == {"box_score": 1.0} and type(options["box_score"]) is float
    assert profile.stages["generator"] == load_profile("embedded").stages["generator"]
    assert (profile.preset, profile.device, profile.text) == ("paper", "cpu", f"{path},device=cpu")


BAD = {
    "enormous": ("enormous", "embedded, consumer, h100"),
    "": ("''", "embedded"),
    "{tmp}/none.yaml": ("none.yaml", "a YAML file"),
    "h100,generators=triposg": ("'generators'", "generator, watcher"),
    "h100,generator=best": ("'best'", "triposg"),
    "h100,generator": ("'generator'", "STAGE=BACKEND"),
    "h100,generator=": ("makes no sense", "STAGE=BACKEND"),
    "h100,generator.speed=9": ("'speed'", "mesh_resolution"),
    "h100,generators.speed=9": ("'generators'", "generator, watcher"),
    "h100,generator.mesh_resolution=fine": ("'fine'", "int"),
    "h100,generator.compile=1": ("compile", "bool"),
    "h100,generator.dtype=int8": ("'int8'", "bfloat16"),
    "h100,dtype=int8": ("'int8'", "bfloat16"),
    "h100,device=gpu": ("'gpu'", "cuda:N"),
    "h100,device=cuda:x": ("'cuda:x'", "cuda:N"),
    "h100,preset=best": ("'best'", "paper"),
    "h100,memory_gib=-1": ("-1", "gibibytes"),
    "h100,memory_gib=.nan": ("nan", "gibibytes"),
    "h100,memory_gib=lots": ("'lots'", "float"),
    "embedded,generator.dtype=float32": ("'dtype'", "no options"),
}


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_profile_is_refused_with_what_is_wrong_and_what_there_is(text: str, tmp_path: Path) -> None:
    seen, expected = BAD[text]
    with pytest.raises(ProfileError) as caught:
        load_profile(text.format(tmp=tmp_path))
    assert seen in caught.value.seen and expected in caught.value.expected


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("- a", "no mapping"),
        ("stages: 3", "no mapping"),
        ("stages: {}\nspeed: 9", "'speed'"),
        ("stages: {generator: {mesh_resolution: 256}}", "''"),
        ("stages: {generator: [a]}", "['a']"),
        ("a: b: c", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, seen: str) -> None:
    path = tmp_path / "wrong.yml"
    path.write_text(content)
    with pytest.raises(ProfileError) as caught:
        load_profile(str(path))
    assert seen in caught.value.seen


def test_only_profiles_whose_segmenter_reads_take_a_name() -> None:
    check_readable("h100", "red mug")
    check_readable("embedded,segmenter=sam3", "red mug")
    check_readable("embedded", " ")
    with pytest.raises(UnsupportedPromptError, match="embedded cannot read"):
        check_readable("embedded", "red mug")


def test_names_checks_and_what_is_missing_need_no_torch() -> None:
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'huggingface_hub'): sys.modules[name] = None\n"
        "from fmh_ros.core.reconstruction.installed import check_installed\n"
        "from fmh_ros.core.reconstruction.profile import PROFILES, load_profile\n"
        "from fmh_ros.core.errors import ModelMissingError\n"
        "for name in PROFILES[1:]:\n"
        "    try: check_installed(load_profile(name)); raise SystemExit('nothing missing')\n"
        "    except ModelMissingError as error: assert 'transformers' in str(error)\n"
        "check_installed(load_profile('embedded'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The registry


def test_every_back_end_has_a_factory_models_of_the_catalogue_and_a_way_to_install_its_libraries() -> None:
    for backend in BACKENDS.values():
        if backend.factory:
            module, _, function = backend.factory.partition(":")
            assert callable(getattr(importlib.import_module(module), function)), backend.key
        models = (*backend.models, *backend.model_options.values())
        assert set(models) <= set(catalogue()), backend.key
        assert all(name in INSTALL for names in backend.libraries for name in names.split("|")), backend.key
        assert set(backend.uses.values()) <= {*BACKENDS, *STAGES}, backend.key
        assert set(backend.model_options) <= set(backend.options)
    used = {m for each in BACKENDS.values() for m in (*each.models, *each.model_options.values())}
    assert used == set(catalogue()), "every model of the catalogue is of use to some back end"


def test_the_documentation_names_every_profile_and_back_end() -> None:
    page = (Path(backends.__file__).parents[2] / "docs" / "models.md").read_text()
    for stage, what in STAGES.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{stage}`: {what} |"))
        assert all(f"`{name}` ({find_backend(stage, name).summary})" in row for name in backends.names_of(stage))
    assert all(f"| `{name}` |" in page for name in PROFILES)


def test_options_of_generators_are_those_that_their_factories_know() -> None:
    for name in backends.names_of("generator"):
        backend = find_backend("generator", name)
        kind = {"h": HunyuanOptions, "t": TripoSGOptions}.get(name[0])
        if kind is None:
            continue
        known = {each.name for each in fields(kind)}
        assert set(backend.options) | set(backend.fixed) <= known
        kind(**backend.fixed)
    assert {f"hunyuan3d-{v}" for v in FOLDERS} == set(MODEL_IDS.values()) <= set(backends.names_of("generator"))
    for variant, row in MODEL_IDS.items():
        vae = BACKENDS[f"generator/{row}"].model_options.get("fast_vae")
        assert vae in (None, VAE_IDS["mini" if variant.startswith("mini") else "2.0"])


def test_the_catalogue_fetches_the_files_that_generators_read() -> None:
    for variant, folder_name in FOLDERS.items():
        files = find_model(MODEL_IDS[variant]).files
        assert f"{folder_name}/config.yaml" in files and all(name.startswith(folder_name + "/") for name in files)
    needed = [*CONFIGS.values(), *WEIGHTS.values()]
    extra = ["README.md", "assets/a.png", "vae/other.safetensors"]
    found = _wanted(find_model("triposg"), [Remote(name, 1) for name in [*needed, *extra, "model_index.json"]])
    assert {each.name for each in found} == {*needed, "model_index.json"}


# What is missing is said at configure time


def test_missing_weights_are_said_with_the_command_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "embedded,segmenter=langsam"
    with pytest.raises(ModelMissingError) as caught:
        load_stages(text)
    assert "sam2, grounding-dino" in caught.value.seen
    assert caught.value.change == f"Run: fmh models pull {text}"
    assert main(["doctor", "--help"]) == 0
    capsys.readouterr()


def test_missing_libraries_are_said_with_the_command_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda name: name not in ("transformers", "hy3dgen", "hy3dshape"))
    profile = load_profile("embedded,generator=hunyuan3d-2.0,segmenter=sam2")
    assert profile.missing_libraries == ("transformers", "hy3dgen")
    with pytest.raises(ModelMissingError) as caught:
        check_installed(profile)
    install = "pip install 'fmh-ros[foundation]' && pip install --no-deps hy3dgen==2.0.2"
    assert caught.value.change == f"Run: {install} && fmh models pull {profile.text}"
    with pytest.raises(ModelMissingError) as caught:
        check_installed(profile, libraries=False)
    assert "libraries" not in caught.value.seen
    monkeypatch.setattr(backends, "is_installed", lambda name: name != "hy3dgen")
    assert profile.missing_libraries == (), "the newer package will do"


def test_the_engine_says_at_configure_what_is_missing_without_loading_anything() -> None:
    engine = LocalEngine()
    engine.start()
    try:
        error = engine.configure("embedded,generator=triposg").exception(PATIENCE)
        assert isinstance(error, ModelMissingError)
        assert "fmh models pull embedded,generator=triposg" in str(error)
        assert engine.status().memory_bytes < 250 * 2**20, "torch alone takes more"
    finally:
        engine.stop()


def test_reconstruct_says_it_before_the_models_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(backends.__file__).parents[1] / "assets" / "example"
    arguments = [str(example / "rgb.png"), "--out", str(tmp_path / "out"), "--stage", "generator=triposg"]
    assert main(["reconstruct", *arguments]) == ModelMissingError.code
    assert "fmh models pull embedded,generator=triposg" in capsys.readouterr().err
    assert main(["reconstruct", *arguments, "--stage", "generator=none"]) == ProfileError.code


# What is loaded


def test_stages_are_swapped_by_real_networks_from_the_store(store: ModelStore) -> None:
    profile = load_profile("embedded,segmenter=sam2,monocular_points=depth-anything")
    assert missing_models(profile) == ()
    stages = load_stages(profile)
    assert isinstance(stages.segmenter, PromptedSegmenter) and stages.segmenter.name == "sam2"
    assert stages.monocular_points is not None and stages.monocular_points.name == "depth-anything"
    assert isinstance(stages.detector, MediaPipeHandDetector)


def test_the_detector_and_the_watcher_share_their_networks() -> None:
    stages: Any = load_stages("embedded")
    assert stages.detector.networks is stages.watcher._networks
    assert stages.segmenter.predictor is stages.watcher._predictor


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of factories in the order in which they ran."""
    ran: list[str] = []
    inner = loading._factory

    def counted(backend: backends.BackEnd) -> Any:
        ran.append(backend.key)
        return inner(backend)

    monkeypatch.setattr(loading, "_factory", counted)
    yield ran


def test_profiles_that_have_models_in_common_load_them_once(store: ModelStore, made: list[str]) -> None:
    cache = ModelCache()
    one = Reconstructor("embedded,segmenter=sam2", cache=cache)
    two = Reconstructor("embedded,segmenter=sam2,monocular_points=depth-anything", cache=cache)
    for reconstructor in (one, two, Reconstructor("embedded,segmenter=sam2", cache=cache)):
        reconstructor.load()
    assert len(made) == len(set(made)), "a second job loads nothing again"
    assert one._stages is not None and two._stages is not None
    assert one._stages.segmenter is two._stages.segmenter and one._stages.generator is two._stages.generator
    cache.load(load_profile("embedded,segmenter=sam2,segmenter.dtype=bfloat16"))
    assert made.count("segmenter/sam2") == 2, "another type is another network"


@pytest.mark.parametrize("keep_bytes", [None, 0])
def test_settings_that_leave_the_weights_alone_do_not_load_them_again(
    keep_bytes: int | None, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_published(random_networks(), tmp_path / "triposg")
    pull(find_model("triposg"), store, Source(files={"triposg": tmp_path / "triposg"}))
    read: list[Path] = []
    inner = triposg.load_networks
    monkeypatch.setattr(triposg, "load_networks", lambda folder: (read.append(folder), inner(folder))[1])
    cache = ModelCache(keep_bytes=keep_bytes)
    text = "embedded,segmenter=sam2,generator=triposg"
    one: Any = cache.load(load_profile(f"{text},generator.guidance_scale=3.0"))
    size = cache.size
    two: Any = cache.load(load_profile(f"{text},generator.guidance_scale=5.0,generator.mesh_resolution=64"))
    assert one.generator.networks is two.generator.networks and len(read) == 1
    settings = [each.generator.options for each in (one, two)]
    assert [each.guidance_scale for each in settings] == [3.0, 5.0] and settings[1].mesh_resolution == 64
    assert cache.size == size, "what two have in common is counted once"
    del one
    cache.load(load_profile(f"{text},generator.dtype=bfloat16"))
    assert len(read) == 2, "another type is another network"
    assert two.generator.networks.vae.post_quant.weight.dtype is torch.float32


@pytest.fixture
def dino(store: ModelStore, tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_grounding_dino(), tmp_path / "dino")
    tiny.tiny_words().save_pretrained(folder)
    pull(find_model("grounding-dino"), store, Source(files={"grounding-dino": folder}))


def test_two_back_ends_on_the_same_weights_have_the_same_network(dino: None) -> None:
    cache = ModelCache()
    named: Any = cache.load(load_profile("embedded,segmenter=langsam,segmenter.box_score=0.2"))
    other: Any = cache.load(load_profile("embedded,segmenter=langsam,segmenter.box_score=0.4"))
    plain: Any = cache.load(load_profile("embedded,segmenter=sam2"))
    networks = {id(each.segmenter.network.network) for each in (named, other, plain)}
    assert len(networks) == 1 and plain.segmenter.finder is None
    assert named.segmenter.finder.network is other.segmenter.finder.network
    assert (named.segmenter.finder.least, other.segmenter.finder.least) == (0.2, 0.4)


def test_settings_have_their_networks_on_the_card_once(dino: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "choose_device", lambda profile: "cpu:0")
    monkeypatch.setattr(loading, "card_memory", lambda device: 2**40)
    cache = ModelCache()
    for score in (0.2, 0.4):
        cache.load(load_profile(f"embedded,segmenter=langsam,segmenter.box_score={score}"))
    residency: Residency = cache._residency["cpu:0"]
    first, second = residency.resident
    assert residency.used == residency.size(first) == residency.size(second)
    assert {type(each.module).__name__ for each in residency._networks.values()} == {
        "Sam2Model", "GroundingDinoForObjectDetection",
    }, "the embedded network that it asks stays on the processor"  # fmt: skip


def test_what_no_profile_uses_goes_when_it_takes_too_much_memory(store: ModelStore, made: list[str]) -> None:
    cache = ModelCache(keep_bytes=0)
    for text in ("embedded,segmenter=sam2", "embedded", "embedded,segmenter=sam2"):
        cache.load(load_profile(text))
    assert made.count("segmenter/sam2") == 2 and made.count("generator/embedded") == 1
    size = cache.size
    cache.load(load_profile("embedded"))
    assert 0 < cache.size < size


def test_networks_lie_on_the_card_by_turns_within_the_budget(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor by another name is the card here: everything but the card itself is real."""
    monkeypatch.setattr(loading, "choose_device", lambda profile: "cpu:0")
    monkeypatch.setattr(loading, "card_memory", lambda device: 2**40)
    monkeypatch.setattr(points, "size_for", lambda *_: (32, 32))  # the published size takes many seconds
    profile = load_profile("embedded,segmenter=sam2,monocular_points=depth-anything")
    cache = ModelCache()
    stages: Any = cache.load(profile)
    residency: Residency = cache._residency["cpu:0"]
    assert len(residency.resident) == 2
    sizes = sorted(residency.size(name) for name in residency.resident)
    residency.budget = sizes[1] + sizes[0] // 2
    residency.make_room(0)
    (there,) = residency.resident
    scene = tiny.painted_scene()
    other = stages.segmenter if there.startswith("monocular") else stages.monocular_points
    assert other.name in ("sam2", "depth-anything") and residency.resident == (there,), "a name needs no network"
    masks = stages.segmenter.segment(scene.frame, scene.hand, ObjectPrompt(mask=scene.object_mask))
    assert residency.resident[-1].startswith("segmenter/sam2") and len(residency.resident) == 1
    stages.monocular_points.map_points(scene.frame, scene.hand, masks)
    assert residency.resident[-1].startswith("monocular_points") and len(residency.resident) == 1
    assert residency.used <= residency.budget


def test_the_device_is_a_card_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: False)
    assert choose_device(load_profile("h100")) == "cpu" == choose_device(load_profile("embedded,device=cuda"))
    with pytest.raises(ProfileError, match=r"no graphics card.*device=cpu"):
        choose_device(load_profile("h100,device=cuda"))
    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading.torch.cuda, "device_count", lambda: 1)
    assert choose_device(load_profile("h100")) == "cuda"
    with pytest.raises(ProfileError, match="1 cards"):
        choose_device(load_profile("h100,device=cuda:1"))
