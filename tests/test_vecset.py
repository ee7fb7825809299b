# SPDX-License-Identifier: Apache-2.0
"""The field of a vector set, on decoders whose shapes are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from fmh_ros.core.fields.pose import torch_pose
from fmh_ros.core.fields.render import RenderSettings, camera_rays, render
from fmh_ros.core.flow.vecset.decoder import DecodeSettings
from fmh_ros.core.flow.vecset.field import REACH, VecsetField
from fmh_ros.core.flow.vecset.nearest import index_surface
from fmh_ros.core.flow.vecset.refine import levels
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.transforms import Similarity

BOUNDS = 1.01
CENTRE, RADIUS = (0.1, -0.2, 0.05), 0.55


@dataclass
class BallDecoder:
    """A ball whose latent (1, 1, 4) is centre and radius; its value is truncated and has an arbitrary unit.

    units : canonical units per unit of the value; truncation : canonical units, None for a value that is not truncated.
    """

    units: float = 0.2
    truncation: float | None = None
    bounds: float = BOUNDS
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bytes_per_point: int = 1000
    points: int = 0
    largest: int = 0
    decodes: int = 0
    linear_until: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.linear_until = None if self.truncation is None else 0.9 * self.truncation / self.units

    def remember(self, latent: Tensor) -> tuple[Tensor, ...]:
        self.decodes += 1
        return latent[0, 0, :3], latent[0, 0, 3]

    def values(self, memory: tuple[Tensor, ...], points: Tensor) -> Tensor:
        self.points += len(points)
        self.largest = max(self.largest, len(points))
        distance = torch.linalg.vector_norm(points - memory[0], dim=-1) - memory[1]
        return (distance if self.truncation is None else distance.clamp(-self.truncation, self.truncation)) / self.units


def ball(decoder: BallDecoder, latent: Tensor | None = None, **settings: object) -> VecsetField:
    latent = torch.tensor([[[*CENTRE, RADIUS]]]) if latent is None else latent
    return VecsetField(decoder, decoder.remember(latent), DecodeSettings(**settings))  # type: ignore[arg-type]


def distance(points: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points - points.new_tensor(CENTRE), dim=-1) - RADIUS


def vertices(resolution: int) -> Tensor:
    axis = torch.linspace(-BOUNDS, BOUNDS, resolution)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def near_surface(count: int, reach: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ray = torch.nn.functional.normalize(torch.randn((count, 3), generator=generator), dim=-1)
    return ray * (RADIUS + reach * (2 * torch.rand((count, 1), generator=generator) - 1)) + torch.tensor(CENTRE)


@pytest.mark.parametrize(("truncation", "tolerance"), [(None, 1e-4), (0.05, 8e-3), (0.02, 8e-3)])
def test_values_of_any_unit_and_truncation_become_distances(truncation: float | None, tolerance: float) -> None:
    made = ball(BallDecoder(0.2 if truncation is None else truncation, truncation))
    points = near_surface(2000, 0.1)
    error = (made.query(points) - distance(points)).abs()
    assert float(error.max()) < tolerance
    assert float(error.mean()) < 2e-3
    truth = distance(vertices(64))
    grid = made.grid(64)
    assert torch.equal(grid < 0, truth < 0)
    close, beside = truth.abs() < 0.1, truth.abs() < BOUNDS / 63
    assert torch.allclose(grid[beside], truth[beside], atol=tolerance)
    # Farther off, coarse cells are interpolated: a tenth of a voxel, where silhouettes are a voxel soft.
    assert torch.allclose(grid[close], truth[close], atol=3e-3 + tolerance)
    assert float(grid[~close].abs().min()) > 0.095


def test_a_fine_grid_is_the_dense_one_at_the_surface_for_a_part_of_the_evaluations() -> None:
    decoder = BallDecoder()
    grid = ball(decoder).grid(160)
    truth = distance(vertices(160))
    close = truth.abs() < 2 * 2 * BOUNDS / 159
    assert torch.equal(grid < 0, truth < 0)
    assert torch.allclose(grid[close], truth[close], atol=1e-4)
    assert decoder.points < 0.2 * 160**3
    assert levels(160) == (40, 80, 160)
    assert levels(48) == (48,)


def test_a_plate_thinner_than_the_coarse_cells_is_found() -> None:
    class Plate(BallDecoder):
        def values(self, memory: tuple[Tensor, ...], points: Tensor) -> Tensor:
            return (points[:, 2] - 0.0313).abs() - 0.006

    grid = ball(Plate()).grid(256)
    axis = torch.linspace(-BOUNDS, BOUNDS, 256)
    inside = (axis - 0.0313).abs() < 0.006
    assert int(inside.sum()) > 0
    assert bool((grid[:, :, inside] < 0).all())


def test_the_grid_is_kept_and_the_tokens_are_decoded_once() -> None:
    decoder = BallDecoder()
    made = ball(decoder)
    first, points = made.grid(64), decoder.points
    assert made.grid(64) is first
    made.grid(32)
    assert decoder.points == points, "the coarse level of the 64^3 grid is the 32^3 grid"
    made.query(torch.zeros((5, 3)))
    assert decoder.points == points + 5
    assert decoder.decodes == 1
    assert not first.requires_grad


@pytest.mark.parametrize("truncation", [None, 0.03])
def test_gradients_are_those_of_the_distance(truncation: float | None) -> None:
    """To the centre, the radius and the points, also where the value itself is saturated."""
    latent = torch.tensor([[[*CENTRE, RADIUS]]], requires_grad=True)
    made = ball(BallDecoder(0.03, truncation), latent)
    points = near_surface(400, 0.1).requires_grad_()
    by_latent, by_points = torch.autograd.grad(made.query(points).sum(), (latent, points))
    outward = torch.nn.functional.normalize(points.detach() - torch.tensor(CENTRE), dim=-1)
    cosine = torch.cosine_similarity(by_points, outward, dim=-1)
    assert float(cosine.min()) > (0.9999 if truncation is None else 0.85)
    assert float(cosine.mean()) > 0.98
    assert float(by_latent[0, 0, 3]) == pytest.approx(-400, rel=0.01)
    assert torch.allclose(by_latent[0, 0, :3], -outward.sum(0), atol=1.0 if truncation is None else 12)


def test_queries_agree_with_finite_differences_in_double_precision() -> None:
    latent = torch.tensor([[[*CENTRE, RADIUS]]], dtype=torch.float64)
    points = near_surface(20, 0.1).double()

    def value(at: Tensor, where: Tensor) -> Tensor:
        return ball(BallDecoder(), at, units_per_value=0.2).query(where)

    assert torch.autograd.gradcheck(value, (latent.requires_grad_(), points.requires_grad_()))


def test_many_points_are_evaluated_in_parts_with_the_same_gradient() -> None:
    points = near_surface(3000, 0.1)
    gradients = []
    for memory_mb in (100, 1):
        decoder = BallDecoder()
        latent = torch.tensor([[[*CENTRE, RADIUS]]], requires_grad=True)
        made = ball(decoder, latent, units_per_value=0.2, memory_mb=memory_mb)
        gradients.append(torch.autograd.grad(made.query(points).square().sum(), latent)[0])
        assert decoder.largest <= memory_mb * 2**20 // 1000
    assert torch.allclose(*gradients, rtol=1e-5)


def test_outside_the_cube_distances_go_on() -> None:
    made = ball(BallDecoder())
    outside = made.query(torch.tensor([[3.0, 0.0, 0.0]]))
    wall = made.query(torch.tensor([[BOUNDS, 0.0, 0.0]]))
    assert float(outside) == pytest.approx(float(wall) + 3.0 - BOUNDS, abs=1e-5)


@pytest.mark.parametrize("truncation", [None, 0.05])
def test_a_field_without_a_surface_is_far_from_it_everywhere(truncation: float | None) -> None:
    made = ball(BallDecoder(0.05, truncation), torch.tensor([[[0.0, 0.0, 0.0, -0.5]]]))
    assert float(made.grid(64).min()) >= REACH * BOUNDS - 1e-6
    assert float(made.query(torch.zeros((1, 3)))) > 0.1


@pytest.mark.parametrize("truncation", [None, 0.03])
def test_it_renders_as_the_ball_it_is(truncation: float | None) -> None:
    """Depth, normals and the silhouette's area, and its gradient to the radius, for a truncated value too."""
    camera = camera_from_field_of_view(64, 64, 30.0)
    pose = Similarity(torch.eye(3).numpy(), torch.tensor([0.0, 0.0, 4.5]).numpy(), 1.0)
    rays = camera_rays(camera)
    latent = torch.tensor([[[*CENTRE, RADIUS]]], requires_grad=True)
    image = render(ball(BallDecoder(0.03, truncation), latent), torch_pose(pose), rays, RenderSettings())
    centre = torch.tensor(CENTRE) + torch.tensor([0.0, 0.0, 4.5])
    hit = image.hit
    outward = ((rays * image.depth[..., None]).detach() - centre) / RADIUS
    error = (outward[hit].norm(dim=-1) - 1).abs()
    assert float(error.quantile(0.97)) < 5e-3
    assert float(error.max()) < 0.05, "a voxel, where rays graze the surface"
    assert float(((outward * image.normals.detach()).sum(-1)[hit]).quantile(0.03)) > 0.98
    (slope,) = torch.autograd.grad(image.silhouette.sum(), latent)
    # A ball of radius r at distance d covers pi (f r)^2 / (d^2 - r^2) pixels, and a little more away from the axis.
    d2, f = float(centre @ centre), camera.focal
    area = torch.pi * f**2 * RADIUS**2 / (d2 - RADIUS**2)
    assert float(image.silhouette.detach().sum()) == pytest.approx(area, rel=0.02)
    assert float(slope[0, 0, 3]) == pytest.approx(2 * area / RADIUS * d2 / (d2 - RADIUS**2), rel=0.1)


def test_the_nearest_surface_point_is_found_as_far_as_the_reach() -> None:
    normals = torch.nn.functional.normalize(torch.randn((3000, 3), generator=torch.Generator().manual_seed(1)), dim=-1)
    found = index_surface(RADIUS * normals + torch.tensor(CENTRE), normals, 32, BOUNDS, 0.3)
    truth = distance(vertices(32))
    known = found.index >= 0
    distances = found.distances()
    assert torch.equal(distances.isfinite(), known)
    assert bool((known == (truth.abs() < 0.3))[(truth.abs() - 0.3).abs() > 0.02].all())
    assert float((distances - truth.abs())[known].abs().max()) < 0.02
    points = near_surface(500, 0.25)
    at, side, near = found.lookup(points)
    assert bool(near.all())
    assert torch.equal(side, distance(points).sign())
    assert torch.allclose((points - at).norm(dim=-1), distance(points).abs(), atol=0.02)


@pytest.mark.parametrize("truncation", [None, 0.05])
def test_a_field_that_follows_an_earlier_one_looks_like_itself_without_searching(truncation: float | None) -> None:
    camera = camera_from_field_of_view(48, 48, 24.0)
    pose = torch_pose(Similarity(torch.eye(3).double().numpy(), (torch.eye(3)[2] * 0.5).double().numpy(), 0.07))
    settings, rays = RenderSettings(64), camera_rays(camera)
    before = torch.tensor([[[*CENTRE, RADIUS]]])
    after = before + torch.tensor([[[0.008, -0.006, 0.01, 0.007]]])
    decoder = BallDecoder(0.2 if truncation is None else truncation, truncation)
    earlier = ball(decoder, before)
    render(earlier, pose, rays, settings)
    images, latents, evaluated = [], [], []
    for follows in (True, False):
        latents.append(after.clone().requires_grad_())
        made, decoder.points = ball(decoder, latents[-1]), 0
        if follows:
            made.follow(earlier)
        images.append(render(made, pose, rays, settings))
        evaluated.append(decoder.points)
    followed, own = images
    seen = (followed.hit & own.hit).float()[None, None]
    inner = torch.nn.functional.max_pool2d(1.0 - seen, 5, 1, 2)[0, 0] == 0
    assert float((followed.depth - own.depth).detach()[inner].abs().max()) < 2e-4
    assert float((followed.normals * own.normals).detach().sum(-1)[inner].min()) > 0.999
    assert float((followed.silhouette - own.silhouette).detach().abs().max()) < 0.1
    for what, tolerance in (("depth", 0.02), ("silhouette", 0.05)):
        where = inner if what == "depth" else torch.ones_like(inner)
        sums = [getattr(image, what)[where].sum() for image in images]
        first, second = (
            torch.autograd.grad(t, latent, retain_graph=True)[0] for t, latent in zip(sums, latents, strict=True)
        )
        torch.testing.assert_close(first, second, rtol=0.0, atol=tolerance * float(second.abs().max()))
    assert evaluated[0] < 0.3 * evaluated[1]
