# SPDX-License-Identifier: Apache-2.0
"""The Hunyuan3D generator over the publisher's real classes at a tiny size, against their own results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tiny_hunyuan import (
    needs_hunyuan,
    random_model,
    random_networks,
    tiny_config,
)
from tiny_vecset import CHANNELS, LATENT, POINTS, TOKENS, flag_view
from torch import Tensor, nn

from fmh_ros.core.errors import EmptyObjectMaskError, ModelFileError, ModelMissingError, UsageError
from fmh_ros.core.flow.hunyuan import library
from fmh_ros.core.flow.hunyuan.checkpoint import FOLDERS, Checkpoint
from fmh_ros.core.flow.hunyuan.decoder import BOUNDS
from fmh_ros.core.flow.hunyuan.model import (
    MODEL_IDS,
    HunyuanOptions,
    HunyuanShapeModel,
    make_hunyuan,
)
from fmh_ros.core.flow.hunyuan.networks import HunyuanNetworks, make_networks
from fmh_ros.core.flow.hunyuan.picture import cut_out, encoder_input, prepare_picture, recentre
from fmh_ros.core.flow.sampler import euler_step, sigmas
from fmh_ros.core.flow.vecset.model import ImageTokens

pytestmark = needs_hunyuan


# The flow


def test_noise_levels_and_steps_are_those_of_the_publishers_scheduler() -> None:
    scheduler = library.build("FlowMatchEulerDiscreteScheduler", {})
    scheduler.set_timesteps(sigmas=np.asarray(sigmas(8)[:-1]))
    assert scheduler.sigmas.tolist() == pytest.approx(random_model().schedule(8))
    assert scheduler.timesteps.tolist() == pytest.approx([1000 * s for s in sigmas(8)[:-1]])
    data, x = torch.ones_like(LATENT), LATENT
    for time, (now, after) in zip(scheduler.timesteps, pairwise(sigmas(8)), strict=True):
        theirs = scheduler.step(data - LATENT, time, x).prev_sample
        assert torch.allclose(theirs, euler_step(x, data - LATENT, now, after), atol=1e-6)
        x = theirs
    assert torch.allclose(x, data, atol=1e-5), "from noise at sigma 0 to data at sigma 1 along data - noise"


@pytest.mark.parametrize("steps", [5, 8, 20])
def test_a_turbo_variant_steps_between_the_phases_it_was_trained_for(steps: int) -> None:
    scheduler = library.build("ConsistencyFlowMatchEulerDiscreteScheduler", {"pcm_timesteps": 50})
    scheduler.set_timesteps(steps)
    assert random_model(turbo=True).schedule(steps) == pytest.approx(scheduler.sigmas_.tolist())
    with pytest.raises(UsageError, match="at most 50"):
        random_model(turbo=True).schedule(60)


class Spy(nn.Module):
    """Stands before a denoiser and keeps what it was called with."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.guidance_embed = getattr(denoiser, "guidance_embed", False)
        self.calls: list[tuple[Tensor, Tensor, Tensor, Any]] = []

    def forward(self, x: Tensor, t: Tensor, contexts: dict[str, Tensor], **more: Any) -> Tensor:
        self.calls.append((x, t, contexts["main"], more["guidance"]))
        return self.denoiser(x, t, contexts, **more)


def spied(turbo: bool = False, **options: Any) -> tuple[HunyuanShapeModel, Spy]:
    networks = random_networks(turbo)
    spy = Spy(networks.denoiser)
    return HunyuanShapeModel(replace(networks, denoiser=spy), HunyuanOptions(**options)).to("cpu"), spy


def test_guidance_moves_from_the_unconditional_velocity_through_the_conditional_one() -> None:
    model, spy = spied(guidance_scale=4.0)
    condition = model.encode_condition(flag_view())
    assert bool((condition.tokens[1] == 0).all()), "nothing is seen: zeros in place of image tokens"
    assert float(condition.tokens[0].abs().max()) > 0
    guided = model.velocity(LATENT, 0.3, condition)
    (x, time, _, guidance) = spy.calls[0]
    assert x.shape[0] == 2 and torch.equal(x[0], x[1])
    assert torch.equal(time, torch.full((2,), 0.3)), "sigma itself, neither times 1000 nor reversed"
    assert guidance is None
    seen, free = (
        spy.denoiser(LATENT, torch.tensor([0.3]), {"main": tokens[None]}, guidance=None) for tokens in condition.tokens
    )
    assert float((seen - free).abs().max()) > 1e-3
    assert torch.allclose(guided, free + 4.0 * (seen - free), atol=1e-5)
    swapped = model.velocity(LATENT, 0.3, ImageTokens(condition.tokens.flip(0)))
    assert torch.allclose(swapped, seen + 4.0 * (free - seen), atol=1e-5)


def test_a_distilled_variant_takes_the_scale_as_an_input_in_one_pass() -> None:
    model, spy = spied(turbo=True, guidance_scale=5.0)
    condition = model.encode_condition(flag_view())
    assert condition.tokens.shape[0] == 1
    velocity = model.velocity(LATENT, 0.4, condition)
    (x, _, _, guidance) = spy.calls[0]
    assert x.shape[0] == 1 and guidance.tolist() == [5.0]
    weaker = HunyuanShapeModel(model.networks, HunyuanOptions(guidance_scale=1.0)).to("cpu")
    assert not torch.allclose(velocity, weaker.velocity(LATENT, 0.4, condition))


def test_the_decaying_scale_has_the_published_values() -> None:
    decaying = HunyuanOptions(guidance_schedule="decaying")
    scales = [decaying.scale_at(s) for s in sigmas(20)[:-1]]
    assert scales[:11] == [5.0] * 11
    assert scales[11:] == pytest.approx([2.25, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert {HunyuanOptions().scale_at(s) for s in sigmas(20)} == {5.0}


def test_version_2_1_runs_where_its_code_is_present() -> None:
    """Its denoiser is a mixture of experts; everything else is as in 2.0. The wheel on PyPI has no code for it."""
    try:
        library.library_class("HunYuanDiTPlain")
    except ModelMissingError as error:
        pytest.skip(str(error))
    config = tiny_config()
    denoiser = {"input_size": TOKENS, "in_channels": CHANNELS, "hidden_size": 64, "context_dim": 24, "depth": 3}
    denoiser |= {"num_heads": 4, "qk_norm": True, "text_len": 5, "use_attention_pooling": False, "qkv_bias": False}
    denoiser |= {"num_moe_layers": 1, "num_experts": 4, "moe_top_k": 2}
    config["model"] = {"target": "hy3dshape.models.denoisers.hunyuandit.HunYuanDiTPlain", "params": denoiser}
    model = HunyuanShapeModel(make_networks(Checkpoint(config, {})), HunyuanOptions(variant="2.1")).to("cpu")
    condition = model.encode_condition(flag_view())
    assert condition.tokens.shape[0] == 2
    velocity = model.velocity(LATENT, 0.5, condition)
    assert velocity.shape == LATENT.shape and bool(velocity.isfinite().all())


# The picture


def test_the_picture_is_prepared_as_the_publisher_does() -> None:
    view = flag_view()
    how = random_networks().picture
    theirs = library.build("ImageProcessorV2", {"size": how.size, "border_ratio": how.border})
    expected = theirs(Image.fromarray(cut_out(view), "RGBA"))["image"]
    assert expected.shape == (1, 3, 64, 64)
    assert torch.equal(prepare_picture(view, how), expected)


def test_the_object_fills_the_middle_of_white_whatever_surrounded_it() -> None:
    view = flag_view()
    noisy = np.where(view.mask[..., None] > 0, view.image, 77).astype(np.uint8)
    square = recentre(cut_out(replace(view, image=noisy)), 0.15)
    assert np.array_equal(square, recentre(cut_out(view), 0.15))
    rows, columns = np.nonzero((square < 250).any(-1))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.85 * 96, abs=2)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(47.5, abs=1.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(47.5, abs=1.5)
    assert np.array_equal(square[0, 0], [255, 255, 255])


def test_a_mask_of_another_size_than_the_picture_is_brought_to_it() -> None:
    view = flag_view()
    fine = replace(view, image=view.image.repeat(4, 0).repeat(4, 1))
    coarse, sharp = (prepare_picture(each, random_networks().picture) for each in (view, fine))
    assert float((coarse - sharp).abs().mean()) < 0.04


def test_an_empty_picture_is_a_typed_error() -> None:
    view = flag_view()
    with pytest.raises(EmptyObjectMaskError, match="empty"):
        random_model().encode_condition(replace(view, mask=np.zeros_like(view.mask)))


def test_the_encoder_sees_the_picture_resized_and_normalised() -> None:
    picture = prepare_picture(flag_view(), random_networks().picture)
    how = replace(random_networks().picture, encoder_size=28)
    bytes_ = ((picture[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    resized = np.asarray(Image.fromarray(bytes_).resize((28, 28), Image.Resampling.BILINEAR)) / 255.0
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(encoder_input(picture, how)[0].permute(1, 2, 0).numpy(), expected, atol=0.02)


# Decoding

VAES: dict[str, dict[str, Any]] = {
    "2.0": {},
    "with pi and biases": {"include_pi": True, "qkv_bias": True, "qk_norm": False},
    "turbo": {"geo_decoder_downsample_ratio": 2, "geo_decoder_mlp_expand_ratio": 1, "geo_decoder_ln_post": False},
}


@pytest.mark.parametrize("kind", VAES)
def test_values_are_the_publishers_logits_negated(kind: str) -> None:
    networks = random_networks(**VAES[kind])
    field = HunyuanShapeModel(networks).to("cpu").decode(LATENT)
    tokens = networks.vae(LATENT / networks.vae.scale_factor)
    logits = networks.vae.geo_decoder(queries=POINTS[None], latents=tokens)[0, :, 0]
    assert float(logits.std()) > 1e-3
    assert torch.allclose(field.values(POINTS), -logits, atol=1e-5)


def test_the_grid_has_the_axes_of_the_publishers_volume() -> None:
    networks = random_networks()
    field = HunyuanShapeModel(networks).to("cpu").decode(LATENT)
    tokens = networks.vae(LATENT / networks.vae.scale_factor)
    module = library._import_beneath("hy3dgen.shapegen", "models.autoencoders.volume_decoders")
    volume = module.VanillaVolumeDecoder()(
        tokens, networks.vae.geo_decoder, bounds=BOUNDS, octree_resolution=24, enable_pbar=False
    )
    for axis in range(3):
        assert not torch.allclose(volume[0], volume[0].flip(axis), atol=1e-3), "nothing symmetric would tell"
    assert torch.allclose(field.grid(25), -volume[0] * field.units_per_value, atol=1e-4)


def test_half_precision_networks_keep_exact_points_and_give_float32() -> None:
    single, half = random_model(), random_model(dtype="bfloat16")
    assert half.networks.denoiser.latent_in.weight.dtype == torch.bfloat16
    frequencies = half.networks.vae.fourier_embedder.frequencies
    assert frequencies.dtype == torch.float32
    latent = LATENT.clone().requires_grad_()
    field = half.decode(latent)
    values = field.values(POINTS)
    assert values.dtype == torch.float32
    exact = single.decode(LATENT).values(POINTS)
    assert float((values.detach() - exact).abs().max()) < 0.03 * float(exact.abs().max())
    (gradient,) = torch.autograd.grad(values.sum(), latent)
    assert gradient.dtype == torch.float32 and float(gradient.abs().max()) > 0
    velocity = half.velocity(LATENT, 0.5, half.encode_condition(flag_view()))
    assert velocity.dtype == torch.float32


def test_gradients_of_the_field_are_those_of_finite_differences() -> None:
    model = random_model().to("cpu", torch.float64)
    latent, points = LATENT.double().requires_grad_(), POINTS[:40].double().requires_grad_()
    weights = torch.linspace(-1, 1, 40, dtype=torch.float64)
    units = model.decode(latent).units_per_value

    def value(at: Tensor, where: Tensor) -> Tensor:
        field = model.decode(at)
        field.settings = replace(field.settings, units_per_value=units)
        return (field.query(where) * weights).sum()

    gradients = torch.autograd.grad(value(latent, points), (latent, points))
    step, generator = 1e-5, torch.Generator().manual_seed(3)
    for k, (leaf, gradient) in enumerate(zip((latent, points), gradients, strict=True)):
        direction = torch.randn(leaf.shape, dtype=torch.float64, generator=generator)
        sides = []
        for sign in (1, -1):
            arguments = [latent.detach(), points.detach()]
            arguments[k] = arguments[k] + sign * step * direction
            sides.append(float(value(*arguments).detach()))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6)


def test_little_memory_means_parts_and_recomputation_with_the_same_gradient() -> None:
    gradients = []
    for memory_mb in (4096, 0):
        latent = LATENT.clone().requires_grad_()
        model = random_model(memory_mb=memory_mb)
        gradients.append(torch.autograd.grad(model.decode(latent).values(POINTS[:50]).square().sum(), latent)[0])
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


def test_compiled_networks_are_the_ones_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled by torch's own tracing, without generating code: what it traced is counted."""
    traced: list[int] = []

    def count(graph: Any, inputs: Any) -> Any:
        traced.append(len(inputs))
        return graph.forward

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend=count))
    model, plain = random_model(compile=True), random_model()
    latent = LATENT.clone().requires_grad_()
    values = model.decode(latent).values(POINTS)
    assert len(traced) == 1, "the one layer of the token transformer"
    assert torch.allclose(values, plain.decode(LATENT).values(POINTS), atol=1e-5)
    assert torch.autograd.grad(values.sum(), latent)[0].abs().max() > 0
    condition = plain.encode_condition(flag_view())
    velocity = model.velocity(LATENT, 0.5, condition)
    assert len(traced) > 1
    assert torch.allclose(velocity, plain.velocity(LATENT, 0.5, condition), atol=1e-5)


def test_no_weight_ever_gets_a_gradient() -> None:
    model = random_model()
    latent = LATENT.clone().requires_grad_()
    model.decode(latent).query(POINTS).sum().backward()
    assert latent.grad is not None
    for module in model.networks.modules():
        assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


# Files


def published(networks: HunyuanNetworks) -> dict[str, Tensor]:
    """All weights under the names of the publisher's files."""
    flat = {f"model.{k}": v for k, v in networks.denoiser.state_dict().items()}
    flat |= {f"vae.{k}": v for k, v in networks.vae.state_dict().items()}
    names = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    for name, value in networks.image_encoder.state_dict().items():
        for new, old in names.items():
            name = name.replace(f"attention.{new}", f"attention.{old}")  # noqa: PLW2901 - one name, four spellings
        flat[f"conditioner.main_image_encoder.model.{name}"] = value
    return {k: v.contiguous().clone() for k, v in flat.items()}


def write(folder: Path, weights: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config or tiny_config()))
    save_file(weights, folder / "model.fp16.safetensors")
    return folder


def test_published_files_load_to_the_same_flow(tmp_path: Path) -> None:
    """Also with an encoder in the file, which old code does not know, and whatever transformers calls its layers."""
    weights = published(random_networks())
    weights |= {"vae.encoder.input_proj.weight": torch.ones(2), "vae.pre_kl.weight": torch.ones(2)}
    config = tiny_config(num_encoder_layers=8, pc_size=81920)
    config["vae"]["target"] = "hy3dshape.models.autoencoders.ShapeVAE"
    write(tmp_path / FOLDERS["2.0"], weights, config)
    loaded = make_hunyuan({MODEL_IDS["2.0"]: tmp_path}, {"guidance_scale": 5.0}, "cpu")
    original = random_model()
    assert loaded.latent_shape == original.latent_shape == (TOKENS, CHANNELS)
    conditions = [model.encode_condition(flag_view()) for model in (loaded, original)]
    assert torch.equal(conditions[0].tokens, conditions[1].tokens)
    velocities = [model.velocity(LATENT, 0.5, conditions[0]) for model in (loaded, original)]
    assert torch.equal(*velocities)
    assert torch.equal(*(model.decode(LATENT).values(POINTS) for model in (loaded, original)))


def test_a_nested_ckpt_and_another_autoencoder_load_too(tmp_path: Path) -> None:
    networks = random_networks()
    nested: dict[str, dict[str, Tensor]] = {}
    for name, value in published(networks).items():
        part, _, rest = name.partition(".")
        nested.setdefault(part, {})[rest] = value
    folder = tmp_path / "mini"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config()))
    torch.save(nested, folder / "model.fp16.ckpt")
    faster = random_networks(**VAES["turbo"])
    vae_config = tiny_config(**VAES["turbo"])["vae"]
    vae = write(tmp_path / "vae", {k: v.clone() for k, v in faster.vae.state_dict().items()}, vae_config)
    models = {MODEL_IDS["mini"]: folder, "hunyuan3d-vae-mini-turbo": vae}
    loaded = make_hunyuan(models, {"variant": "mini", "fast_vae": True}, "cpu")
    assert loaded.name == "hunyuan3d-mini"
    expected = HunyuanShapeModel(replace(networks, vae=faster.vae)).to("cpu")
    assert torch.equal(*(model.decode(LATENT).values(POINTS) for model in (loaded, expected)))


def test_files_that_do_not_fit_are_told_apart(tmp_path: Path) -> None:
    weights = published(random_networks())
    del weights["model.latent_in.weight"]
    folder = write(tmp_path / "a", weights)
    with pytest.raises(ModelFileError, match=r"denoiser do not fit: 1 missing, 0 unknown \(latent_in\.weight"):
        make_hunyuan({MODEL_IDS["2.0"]: folder}, {}, "cpu")
    (folder / "model.fp16.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match="cannot be read"):
        make_hunyuan({MODEL_IDS["2.0"]: folder}, {}, "cpu")
    (folder / "model.fp16.safetensors").unlink()
    (folder / "model.ckpt").write_bytes(b"not a pickle")
    with pytest.raises(ModelFileError, match="cannot be read"):
        make_hunyuan({MODEL_IDS["2.0"]: folder}, {}, "cpu")
    (folder / "model.ckpt").unlink()
    with pytest.raises(ModelMissingError, match="fmh models pull"):
        make_hunyuan({MODEL_IDS["2.0"]: folder}, {}, "cpu")
    with pytest.raises(ModelMissingError, match=r"hunyuan3d-dit-v2-0/config\.yaml"):
        make_hunyuan({MODEL_IDS["2.0"]: tmp_path}, {}, "cpu")
    with pytest.raises(ModelMissingError, match=r"hunyuan3d-2\.0 is not installed"):
        make_hunyuan({}, {}, "cpu")
    with pytest.raises(UsageError, match="no option colour"):
        make_hunyuan({}, {"colour": 1}, "cpu")
    with pytest.raises(UsageError, match="mini-turbo"):
        HunyuanShapeModel.load(folder, HunyuanOptions(variant="3"))


@pytest.mark.parametrize("options", [{"dtype": "half"}, {"guidance_schedule": "decay"}])
def test_an_option_with_a_value_that_does_not_exist_is_refused_and_not_taken_for_the_default(
    options: dict[str, str],
) -> None:
    with pytest.raises(UsageError, match="|".join(options.values())):
        make_hunyuan({}, options, "cpu")


def test_a_pickle_may_hold_other_things_beside_weights_but_must_hold_weights(tmp_path: Path) -> None:
    networks, folder = random_networks(), tmp_path / FOLDERS["2.0"]
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config()))
    parts = {"model": networks.denoiser.state_dict(), "vae": networks.vae.state_dict()}
    encoder = {f"main_image_encoder.model.{k}": v for k, v in networks.image_encoder.state_dict().items()}
    torch.save({"epoch": 7, "hyper": {"rate": 1.0}, **parts, "conditioner": encoder}, folder / "model.ckpt")
    loaded = HunyuanShapeModel.load(tmp_path, HunyuanOptions())
    expected = HunyuanShapeModel(networks).to("cpu")
    assert torch.equal(*(model.decode(LATENT).values(POINTS) for model in (loaded, expected)))
    torch.save([torch.zeros(3)], folder / "model.ckpt")
    with pytest.raises(ModelFileError, match="cannot be read"):
        HunyuanShapeModel.load(tmp_path, HunyuanOptions())


@pytest.fixture
def torchvision() -> Iterator[None]:
    """The few names that the publisher's image encoder takes from torchvision; its pictures need no resizing here."""
    import transformers.models.dinov2.modeling_dinov2  # noqa: F401 - looks for the real torchvision, so it comes first

    class Normalize:
        def __init__(self, mean: list[float], std: list[float]) -> None:
            self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

        def __call__(self, image: Tensor) -> Tensor:
            return (image - self.mean) / self.std

    def same(size: int, *_: object, **__: object) -> Any:
        return lambda image: image if image.shape[-1] == size else pytest.fail("another size")

    transforms: Any = ModuleType("torchvision.transforms")
    transforms.Compose = lambda parts: lambda image: parts[2](parts[1](parts[0](image)))
    transforms.Resize, transforms.CenterCrop, transforms.Normalize = same, same, Normalize
    transforms.InterpolationMode = type("InterpolationMode", (), {"BILINEAR": "bilinear"})
    package: Any = ModuleType("torchvision")
    package.transforms = transforms
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", package)
        patch.setitem(sys.modules, "torchvision.transforms", transforms)
        yield
    sys.modules.pop("hy3dgen.shapegen.models.conditioner", None)


@pytest.mark.usefixtures("torchvision")
def test_conditions_are_those_of_the_publishers_image_encoder() -> None:
    module = library._import_beneath("hy3dgen.shapegen", "models.conditioner")
    config = tiny_config()["conditioner"]["params"]
    theirs = module.SingleImageEncoder(**config).eval()
    networks = random_networks()
    networks = replace(networks, picture=replace(networks.picture, size=28))
    model = HunyuanShapeModel(networks).to("cpu")
    theirs.main_image_encoder.model.load_state_dict(networks.image_encoder.state_dict())
    expected = theirs(prepare_picture(flag_view(), networks.picture))["main"]
    nothing = theirs.unconditional_embedding(1)["main"]
    assert torch.allclose(model.encode_condition(flag_view()).tokens, torch.cat([expected, nothing]), atol=1e-5)


# The library


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_library_is_imported_without_what_surrounds_it() -> None:
    code = "import sys; from fmh_ros.core.flow.hunyuan.library import library_class\n"
    code += "print(library_class('ShapeVAE').__module__, library_class('Hunyuan3DDiT').__module__)\n"
    code += "heavy = ('torchvision', 'pymeshlab', 'rembg', 'transformers', 'hy3dgen.shapegen.pipelines')\n"
    code += "assert not [name for name in heavy if name in sys.modules]\n"
    code += "import hy3dgen; assert hy3dgen.__file__, 'no stand-in is left behind'"
    expected = "hy3dgen.shapegen.models.autoencoders.model hy3dgen.shapegen.models.denoisers.hunyuan3ddit"
    assert run_python(code) == expected


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.modules['hy3dgen'] = sys.modules['hy3dshape'] = None\n"
    code += "from fmh_ros.core.flow.hunyuan.library import library_class\n"
    code += "from fmh_ros.core.errors import ModelMissingError\n"
    code += "try: library_class('ShapeVAE')\nexcept ModelMissingError as error: print(error)"
    assert "pip install --no-deps hy3dgen==2.0.2" in run_python(code)
    monkeypatch.setitem(library.MODULES, "Hunyuan4D", "schedulers")
    with pytest.raises(ModelMissingError, match="installed but has no Hunyuan4D"):
        library.library_class("Hunyuan4D")
    monkeypatch.setitem(library.MODULES, "Hunyuan4D", "models.newer")
    with pytest.raises(ModelMissingError, match="cannot be imported from it: No module named"):
        library.library_class("Hunyuan4D")


def test_the_embedded_profile_loads_without_it() -> None:
    code = "import sys; from fmh_ros.core.reconstruction.profile import load_stages\n"
    code += "import fmh_ros.core.flow.hunyuan.model\nload_stages('embedded')\n"
    code += "print([name for name in sys.modules if name.startswith(('hy3d', 'transformers', 'diffusers'))])"
    assert run_python(code) == "[]"
