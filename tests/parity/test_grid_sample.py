"""Reading planes of features against torch's `grid_sample`, values and gradients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.geometry import planes

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


def test_triplanes_are_read_as_by_grid_sample():
    rng = np.random.default_rng(0)
    stack = rng.normal(size=(2, 3, 7, 7, 5)).astype(np.float32)
    points = rng.uniform(-1.4, 1.4, (2, 60, 3)).astype(np.float32)
    weights = rng.normal(size=(2, 60, 5)).astype(np.float32)
    both = jax.jit(lambda stack, points, weights: (planes.sample(stack, points), *jax.grad(
        lambda s, p: (planes.sample(s, p) * weights).sum(), (0, 1))(stack, points)))  # fmt: skip
    values, of_planes, of_points = both(stack, points, weights)

    theirs, places = (torch.tensor(array, requires_grad=True) for array in (stack, points))
    projected = torch.stack([places[..., [0, 1]], places[..., [0, 2]], places[..., [1, 2]]], 1).reshape(6, 1, 60, 2)
    images = theirs.permute(0, 1, 4, 2, 3).reshape(6, 5, 7, 7)
    found = torch.nn.functional.grid_sample(images, projected, padding_mode="zeros", align_corners=False)
    found = found.reshape(2, 3, 5, 60).mean(1).transpose(1, 2)
    (found * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(values, found.detach(), atol=1e-5)
    np.testing.assert_allclose(of_planes, theirs.grad, atol=1e-5)
    np.testing.assert_allclose(of_points, places.grad, atol=1e-4)
