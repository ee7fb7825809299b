# SPDX-License-Identifier: Apache-2.0
"""The TripoSG generator at a tiny size: the published names, conventions, closed forms and round trips."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_triposg import (
    needs_triposg,
    random_model,
    random_networks,
    save_published,
    tiny_configs,
)
from tiny_vecset import CHANNELS, LATENT, POINTS, TOKENS, flag_view
from torch import Tensor, nn

from fmh_ros.core.errors import EmptyObjectMaskError, ModelFileError, ModelMissingError, UsageError
from fmh_ros.core.fields.pose import torch_pose
from fmh_ros.core.fields.render import RenderSettings, camera_rays, render
from fmh_ros.core.flow.sampler import clean_estimate, euler_step, initial_noise
from fmh_ros.core.flow.triposg.decoder import BOUNDS, TripoSGDecoder
from fmh_ros.core.flow.triposg.model import (
    CONFIGS,
    MODEL_ID,
    WEIGHTS,
    TripoSGNetworks,
    TripoSGOptions,
    TripoSGShapeModel,
    its_time,
    make_networks,
    make_triposg,
)
from fmh_ros.core.flow.triposg.picture import EncoderFormat, encoder_input, prepare_picture
from fmh_ros.core.flow.vecset.model import ImageTokens
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.transforms import Similarity

pytestmark = needs_triposg


# The published checkpoint

#: Configuration of the released model: 1.44 billion parameters, and an autoencoder of 214 million that decodes.
RELEASED = {
    "transformer": {
        "in_channels": 64,
        "width": 2048,
        "num_attention_heads": 16,
        "num_layers": 21,
        "cross_attention_dim": 1024,
    },
    "vae": {
        "latent_channels": 64,
        "width_decoder": 1024,
        "num_attention_heads": 8,
        "num_layers_decoder": 16,
        "embed_frequency": 8,
    },
}


def _layer(name: str, width: int, norms: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """A block's norms and feed-forward."""
    found: dict[str, tuple[int, ...]] = {}
    for norm in norms:
        found |= {f"{name}.{norm}.weight": (width,), f"{name}.{norm}.bias": (width,)}
    return found | {
        f"{name}.ff.net.0.proj.weight": (4 * width, width),
        f"{name}.ff.net.0.proj.bias": (4 * width,),
        f"{name}.ff.net.2.weight": (width, 4 * width),
        f"{name}.ff.net.2.bias": (width,),
    }


def _attention(name: str, width: int, context: int, head: int | None) -> dict[str, tuple[int, ...]]:
    """Projections without biases but the last, and norms of queries and keys for heads of ``head`` channels."""
    found: dict[str, tuple[int, ...]] = {
        f"{name}.to_q.weight": (width, width),
        f"{name}.to_k.weight": (width, context),
        f"{name}.to_v.weight": (width, context),
        f"{name}.to_out.0.weight": (width, width),
        f"{name}.to_out.0.bias": (width,),
    }
    return found if head is None else found | {f"{name}.norm_q.weight": (head,), f"{name}.norm_k.weight": (head,)}


def _affine(name: str, outputs: int, inputs: int | None = None) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs,) if inputs is None else (outputs, inputs), f"{name}.bias": (outputs,)}


def published_transformer() -> dict[str, tuple[int, ...]]:
    names = _affine("time_proj.linear_1", 8192, 2048) | _affine("time_proj.linear_2", 2048, 8192)
    names |= _affine("proj_in", 2048, 64) | _affine("norm_out", 2048) | _affine("proj_out", 64, 2048)
    for layer in range(21):
        block = f"blocks.{layer}"
        names |= _layer(block, 2048, ("norm1", "norm2", "norm3"))
        names |= _attention(f"{block}.attn1", 2048, 2048, 128) | _attention(f"{block}.attn2", 2048, 1024, 128)
        if layer > 10:
            names |= _affine(f"{block}.skip_linear", 2048, 4096) | _affine(f"{block}.skip_norm", 2048)
    return names


def published_decoder() -> dict[str, tuple[int, ...]]:
    names = _affine("post_quant", 1024, 64) | _affine("decoder.proj_query", 1024, 51)
    names |= _affine("decoder.norm_out", 1024) | _affine("decoder.proj_out", 1, 1024)
    for layer in range(16):
        block = f"decoder.blocks.{layer}"
        names |= _layer(block, 1024, ("norm1", "norm3")) | _attention(f"{block}.attn1", 1024, 1024, None)
    names |= _layer("decoder.blocks.16", 1024, ("norm2", "norm3"))
    names |= _attention("decoder.blocks.16.attn2", 1024, 1024, None)
    return names | _affine("decoder.blocks.16.attn2.norm_cross", 1024)


def test_parameters_have_the_names_and_shapes_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        networks = make_networks(tiny_configs() | RELEASED, {})
    for module, published in (
        (networks.denoiser, published_transformer()),
        (networks.vae, published_decoder()),
    ):
        assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == published
    assert sum(p.numel() for p in networks.denoiser.parameters()) == 1_439_556_160
    assert sum(p.numel() for p in networks.vae.parameters()) == 214_208_513


def test_a_saved_folder_loads_to_the_same_results(tmp_path: Path) -> None:
    model = random_model()
    save_published(model.networks, tmp_path)
    loaded = make_triposg({MODEL_ID: tmp_path}, {"tokens": TOKENS, "guidance_scale": 3.0}, "cpu")
    condition = model.encode_condition(flag_view())
    again = loaded.encode_condition(flag_view())
    assert torch.equal(condition.tokens, again.tokens)
    expected = replace(model.options, guidance_scale=3.0)
    same = TripoSGShapeModel(model.networks, expected)
    assert torch.equal(loaded.velocity(LATENT, 0.3, again), same.velocity(LATENT, 0.3, condition))
    assert torch.equal(loaded.decode(LATENT).values(POINTS), model.decode(LATENT).values(POINTS))
    assert not any(p.requires_grad for p in loaded.networks.denoiser.parameters())


def test_missing_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"transformer/config\.json"):
        make_triposg({MODEL_ID: tmp_path}, {}, "cpu")
    with pytest.raises(ModelMissingError, match="triposg"):
        make_triposg({}, {}, "cpu")
    with pytest.raises(UsageError, match="steps"):
        make_triposg({MODEL_ID: tmp_path}, {"steps": 3}, "cpu")
    save_published(random_networks(), tmp_path)
    path = tmp_path / WEIGHTS["transformer"]
    weights = load_file(path)
    weights["blocks.4.attn3.to_q.weight"] = weights.pop("blocks.4.attn1.to_q.weight")
    save_file(weights, path)
    with pytest.raises(ModelFileError, match=r"1 missing, 1 unknown .*blocks\.4\.attn1\.to_q\.weight"):
        make_triposg({MODEL_ID: tmp_path}, {}, "cpu")
    path.write_bytes(b"no weights")
    with pytest.raises(ModelFileError, match="cannot be read"):
        make_triposg({MODEL_ID: tmp_path}, {}, "cpu")
    (tmp_path / CONFIGS["scheduler"]).write_text("[1, 2]")
    with pytest.raises(ModelFileError, match=r"scheduler_config\.json is not a mapping"):
        make_triposg({MODEL_ID: tmp_path}, {}, "cpu")


def test_a_model_with_a_second_condition_is_refused() -> None:
    configs = tiny_configs()
    configs["transformer"]["use_cross_attention_2"] = True
    with pytest.raises(ModelFileError, match="second condition"):
        make_networks(configs, {})


def test_nothing_optional_is_imported_before_loading() -> None:
    code = (
        "import sys, fmh_ros.core.flow.triposg.model\n"
        "assert not {'diffusers', 'transformers', 'accelerate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The flow


class Recorder(nn.Module):
    """Predicts ``data - noise`` for a known pair, and remembers what it was asked."""

    def __init__(self, data: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.data, self.noise = data, noise
        self.proj_out = nn.Linear(1, CHANNELS)
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, latent: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.asked.append((latent, time, context))
        return (self.data - self.noise).expand_as(latent) + context.mean((1, 2))[:, None, None]


def _recorded(scale: float = 1.0) -> tuple[TripoSGShapeModel, Recorder]:
    data = initial_noise((TOKENS, CHANNELS), torch.Generator().manual_seed(5))
    recorder = Recorder(data, LATENT)
    networks = replace(random_networks(), denoiser=recorder)
    return TripoSGShapeModel(networks, TripoSGOptions(tokens=TOKENS, guidance_scale=scale)), recorder


def test_time_runs_from_1000_at_noise_to_0_at_data_and_steps_end_at_the_data() -> None:
    model, recorder = _recorded()
    condition = ImageTokens(torch.zeros(2, 5, 24))
    levels, x = model.schedule(4), LATENT
    for here, there in pairwise(levels):
        velocity = model.velocity(x, here, condition)
        torch.testing.assert_close(clean_estimate(x, velocity, here), recorder.data)
        x = euler_step(x, velocity, here, there)
    torch.testing.assert_close(x, recorder.data)
    assert [float(time[0]) for _, time, _ in recorder.asked] == pytest.approx([1000.0, 750.0, 500.0, 250.0])


def test_a_shifted_schedule_spends_its_steps_near_the_noise() -> None:
    model, _ = _recorded()
    assert model.schedule(5) == pytest.approx((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    shifted = TripoSGShapeModel(replace(model.networks, shift=3.0)).schedule(5)
    # The publisher's levels for shift 3 and 5 steps: 1, 0.9231, 0.8182, 0.6667, 0.4286, 0.
    assert shifted == pytest.approx((0.0, 1 / 13, 2 / 11, 1 / 3, 4 / 7, 1.0))


def test_guidance_puts_the_unconditional_first_and_extrapolates_from_it() -> None:
    model, recorder = _recorded(scale=7.0)
    condition = model.encode_condition(flag_view())
    assert not condition.tokens[0].any() and condition.tokens[1].any()
    velocity = model.velocity(LATENT, 0.5, condition)
    assert torch.equal(recorder.asked[0][2], condition.tokens)
    torch.testing.assert_close(velocity, recorder.data - LATENT + 7.0 * condition.tokens[1].mean())


def test_the_condition_and_the_time_matter_and_the_result_is_deterministic() -> None:
    model = random_model()
    view = flag_view()
    mirrored = replace(view, image=view.image[:, ::-1].copy(), mask=view.mask[:, ::-1].copy())
    first, other = model.encode_condition(view), model.encode_condition(mirrored)
    velocity = model.velocity(LATENT, 0.4, first)
    assert velocity.shape == LATENT.shape and velocity.dtype == torch.float32 and not velocity.requires_grad
    assert torch.equal(velocity, model.velocity(LATENT, 0.4, first))
    for changed in (model.velocity(LATENT, 0.4, other), model.velocity(LATENT, 0.5, first)):
        assert float((velocity - changed).abs().max()) > 1e-4


def test_networks_and_steps_are_those_of_the_publishers_classes() -> None:
    """With the publisher's repository on PYTHONPATH: the same weights give the same velocity, distances and levels."""
    reason = "the publisher's code, github.com/VAST-AI-Research/TripoSG, is not on PYTHONPATH"
    flows = pytest.importorskip("triposg.models.transformers.triposg_transformer", reason=reason)
    shapes = pytest.importorskip("triposg.models.autoencoders.autoencoder_kl_triposg", reason=reason)
    steps = pytest.importorskip("triposg.schedulers.scheduling_rectified_flow", reason=reason)
    networks = random_networks()
    flow_config, shape_config = (
        {k: v for k, v in tiny_configs()[part].items() if k[0] != "_"} for part in ("transformer", "vae")
    )
    denoiser = flows.TripoSGDiTModel(**flow_config).eval()
    denoiser.load_state_dict(networks.denoiser.state_dict())
    vae = shapes.TripoSGVAEModel(**shape_config).eval()
    half = vae.load_state_dict(networks.vae.state_dict(), strict=False)
    assert not half.unexpected_keys and all(key.startswith(("encoder", "quant")) for key in half.missing_keys)
    tokens, times = torch.randn(2, 5, 24), torch.tensor([700.0, 700.0])
    with torch.no_grad():
        theirs = denoiser(LATENT.expand(2, -1, -1), times, encoder_hidden_states=tokens, return_dict=False)[0]
        torch.testing.assert_close(networks.denoiser(LATENT.expand(2, -1, -1), times, tokens), theirs)
        decoder = TripoSGDecoder(networks.vae, 100)
        values = decoder.values(decoder.remember(LATENT), POINTS)
        # It negates what the network says and meshes that with its inside positive, so the network's is negative there.
        torch.testing.assert_close(-values, vae.decode(LATENT, sampled_points=POINTS[None]).sample[0, :, 0])
    scheduler = steps.RectifiedFlowScheduler(shift=2.0)
    scheduler.set_timesteps(7)
    model = TripoSGShapeModel(replace(networks, shift=2.0), TripoSGOptions(tokens=TOKENS))
    levels = model.schedule(7)
    np.testing.assert_allclose(1.0 - np.array(levels), scheduler.sigmas, atol=1e-6)
    np.testing.assert_allclose([its_time(level) for level in levels[:-1]], scheduler.timesteps, atol=1e-3)
    moved = scheduler.step(torch.ones(3), scheduler.timesteps[0], torch.zeros(3), return_dict=False)[0]
    np.testing.assert_allclose(moved, euler_step(torch.zeros(3), torch.ones(3), levels[0], levels[1]), atol=1e-6)


def test_tokens_have_no_order() -> None:
    model = random_model()
    condition = model.encode_condition(flag_view())
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(2))
    turned = model.velocity(LATENT[:, order], 0.4, condition)
    torch.testing.assert_close(turned, model.velocity(LATENT, 0.4, condition)[:, order], atol=1e-5, rtol=1e-4)


def test_the_denoiser_is_differentiable() -> None:
    denoiser = random_networks().denoiser
    latent = LATENT.clone().requires_grad_()
    denoiser(latent, torch.tensor([300.0]), torch.ones(1, 5, 24)).square().sum().backward()
    assert latent.grad is not None and float(latent.grad.abs().min()) > 0


def test_heads_own_consecutive_channels_of_the_joined_projections() -> None:
    block = random_networks().denoiser.blocks[0]
    attention: Any = block.attn1
    x = LATENT[0, :6].repeat(1, 4)
    joined = torch.cat([attention.to_q(x), attention.to_k(x), attention.to_v(x)], -1)
    expected = []
    for head in range(4):
        own = joined[:, 24 * head : 24 * (head + 1)]
        query, key, value = own[:, :8], own[:, 8:16], own[:, 16:]
        query, key = (
            e * torch.rsqrt(e.square().mean(-1, keepdim=True) + 1e-6) * w
            for e, w in ((query, attention.norm_q.weight), (key, attention.norm_k.weight))
        )
        expected.append(torch.softmax(query @ key.T / 8**0.5, -1) @ value)
    expected_out = attention.to_out[0](torch.cat(expected, -1))
    torch.testing.assert_close(attention(x[None])[0], expected_out, atol=1e-5, rtol=1e-4)


def test_the_last_blocks_join_the_first_in_reverse_and_the_middle_joins_none() -> None:
    denoiser: Any = random_networks().denoiser
    seen: list[tuple[Tensor | None, Tensor]] = []
    for block in denoiser.blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[2], output)))
    denoiser(LATENT, torch.tensor([500.0]), torch.zeros(1, 5, 24))
    joined = [earlier for earlier, _ in seen]
    outputs = [output for _, output in seen]
    assert joined[:3] == [None, None, None]
    assert torch.equal(joined[3], outputs[1]) and torch.equal(joined[4], outputs[0])


# The field

CENTRE, HALF = (0.35, -0.2, 0.1), (0.2, 0.35, 0.5)


def _box(points: Tensor) -> Tensor:
    """Signed distance of a rounded box off the centre, with three different sides."""
    q = (points - torch.tensor(CENTRE)).abs() - (torch.tensor(HALF) - 0.1)
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0) - 0.1


@pytest.fixture(scope="module")
def boxed() -> TripoSGNetworks:
    """Networks whose autoencoder has learnt one box; its output is what the publisher negates."""
    networks = random_networks()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = make_networks(tiny_configs(), {})
        vae = networks.vae.requires_grad_(True)
        optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
        for step in range(300):
            optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / 300)
            decoder = TripoSGDecoder(vae, 1000)
            points = BOUNDS * (2 * torch.rand(1024, 3) - 1)
            published_output = -decoder.values(decoder.remember(LATENT), points)
            loss = (published_output + _box(points)).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return networks


def test_a_learnt_asymmetric_object_stands_where_it_was_with_its_inside_negative(boxed: TripoSGNetworks) -> None:
    field = TripoSGShapeModel(boxed, TripoSGOptions(tokens=TOKENS)).to("cpu").decode(LATENT)
    assert field.bounds == BOUNDS
    grid = field.grid(64)
    inside = torch.nonzero(grid < 0).float() / 63 * 2 * BOUNDS - BOUNDS
    low, high = inside.amin(0), inside.amax(0)
    torch.testing.assert_close((low + high) / 2, torch.tensor(CENTRE), atol=0.05, rtol=0)
    torch.testing.assert_close((high - low) / 2, torch.tensor(HALF), atol=0.06, rtol=0)
    # The measured unit makes it a distance near the surface.
    near = POINTS[_box(POINTS).abs() < 0.08]
    assert float((field.query(near) - _box(near)).abs().mean()) < 0.03


def test_a_learnt_object_renders_where_its_pose_says(boxed: TripoSGNetworks) -> None:
    field = TripoSGShapeModel(boxed, TripoSGOptions(tokens=TOKENS)).to("cpu").decode(LATENT)
    camera = camera_from_field_of_view(48, 48, 30.0)
    pose = torch_pose(Similarity(np.eye(3), np.array([0.0, 0.0, 0.6]), 0.1))
    image = render(field, pose, camera_rays(camera), RenderSettings(64))
    rows, columns = (each.float().mean() for each in torch.nonzero(image.hit).unbind(-1))
    u, v = camera.project(np.array([[0.035, -0.02, 0.61]]))[0]
    assert abs(float(columns) - u) < 1.5 and abs(float(rows) - v) < 1.5


def test_points_are_embedded_as_themselves_then_sines_then_cosines() -> None:
    vae: Any = random_networks().vae
    point = torch.tensor([[0.3, -0.7, 0.9]])
    angles = [c * 2.0**k for c in (0.3, -0.7, 0.9) for k in range(4)]
    expected = torch.tensor([[0.3, -0.7, 0.9, *np.sin(angles), *np.cos(angles)]], dtype=torch.float32)
    torch.testing.assert_close(vae.embed(point), expected)


def test_values_are_the_whole_networks_with_keys_computed_once() -> None:
    model = random_model()
    decoder = TripoSGDecoder(model.networks.vae, 1000)
    vae: Any = model.networks.vae
    tokens = vae.post_quant(LATENT)
    *blocks, last = vae.decoder.blocks
    for block in blocks:
        tokens = block(tokens)
    x = last(vae.decoder.proj_query(vae.embed(POINTS))[None], tokens)
    expected = vae.decoder.proj_out(vae.decoder.norm_out(x))[0, :, 0]
    torch.testing.assert_close(decoder.values(decoder.remember(LATENT), POINTS), expected, atol=1e-5, rtol=1e-4)
    sparing = TripoSGDecoder(model.networks.vae, 0)
    leaf = LATENT.clone().requires_grad_()
    sums = [d.values(d.remember(leaf), POINTS).square().sum() for d in (decoder, sparing)]
    plain, checkpointed = (torch.autograd.grad(each, leaf)[0] for each in sums)
    torch.testing.assert_close(plain, checkpointed)


def test_gradients_agree_with_finite_differences() -> None:
    networks = random_networks()
    networks.vae.double()
    decoder = TripoSGDecoder(networks.vae, 1000)
    latent, points = LATENT.double().requires_grad_(), POINTS[:40].double().requires_grad_()

    def total(z: Tensor, p: Tensor) -> Tensor:
        return (decoder.values(decoder.remember(z), p) * torch.linspace(-1, 1, 40).double()).sum()

    gradients = torch.autograd.grad(total(latent, points), (latent, points))
    generator = torch.Generator().manual_seed(3)
    analytic, finite = [], []
    with torch.no_grad():
        for which, gradient in enumerate(gradients):
            for _ in range(4):
                # The norms of the blocks work in float32 whatever the network's precision, hence no smaller steps.
                step = 1e-3 * torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
                steps = [(step, 0), (-step, 0)] if which == 0 else [(0, step), (0, -step)]
                ends = [total(latent + a, points + b) for a, b in steps]
                finite.append(float(ends[0] - ends[1]) / 2)
                analytic.append(float((gradient * step).sum()))
    for k in (0, 4):
        scale = max(abs(each) for each in finite[k : k + 4])
        assert analytic[k : k + 4] == pytest.approx(finite[k : k + 4], abs=0.01 * scale)


def test_a_lower_precision_moves_values_little_and_keeps_float32_outside() -> None:
    model = random_model()
    exact = model.decode(LATENT).values(POINTS)
    condition = model.encode_condition(flag_view())
    velocity = model.velocity(LATENT, 0.5, condition)
    model.to("cpu", torch.bfloat16)
    coarse = model.decode(LATENT).values(POINTS)
    again = model.velocity(LATENT, 0.5, model.encode_condition(flag_view()))
    assert coarse.dtype == again.dtype == torch.float32
    assert float((coarse - exact).abs().mean()) < 0.05 * float(exact.abs().max())
    assert float((again - velocity).abs().mean()) < 0.2 * float(velocity.abs().mean())


# The picture


def test_the_object_stands_on_white_in_the_middle_of_a_square() -> None:
    view = flag_view()
    noisy = replace(view, image=np.where(view.mask[..., None] > 0, view.image, 77).astype(np.uint8))
    picture = prepare_picture(noisy)
    # 50 rows and 36 columns, and a tenth of the larger on each side.
    assert picture.shape == (60, 60, 3)
    rows, columns = np.nonzero((picture < 255).any(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 54, 12, 47)
    assert np.array_equal(
        picture[5:55, 12:48], np.where(view.mask[20:70, 30:66, None] > 0, view.image[20:70, 30:66], 255)
    )
    with pytest.raises(EmptyObjectMaskError):
        prepare_picture(replace(view, mask=np.zeros_like(view.mask)))


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}},
        {"size": {"height": 30, "width": 26}, "do_center_crop": False},
    ],
)
def test_the_encoders_input_is_that_of_the_librarys_processor(config: dict[str, Any]) -> None:
    import transformers

    name = "BitImageProcessorPil" if hasattr(transformers, "BitImageProcessorPil") else "BitImageProcessor"
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (61, 53, 3), np.uint8)
    ours = encoder_input(picture, EncoderFormat.from_config(config))
    settings = {"image_mean": EncoderFormat.mean, "image_std": EncoderFormat.deviation, "resample": 3, **config}
    theirs = getattr(transformers, name)(**settings)(picture, return_tensors="pt").pixel_values
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)
