"""Tests that the rows of benchmarks/run.py time the same networks on both sides."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from benchmarks import jax_side, torch_side, workloads

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")

from benchmarks import torch_singan, torch_stylegan2, torch_translation, torch_triplane  # noqa: E402

pytestmark = pytest.mark.parity


def parameters(row, small):
    _, method = jax_side._config_and_method(row, "cpu", small)
    batch = jax_side._batch(row, method, small)
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, np.float32 if x.dtype == np.uint8 else x.dtype) for name, x in batch.items()
    }
    learned, _ = jax.eval_shape(lambda key, batch: method.init(key, batch, 0, {}, {}, {}), jax.random.key(0), shapes)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(learned))


@pytest.mark.parametrize(
    ("name", "small"), [("unet16", False), ("unet_cifar", True), ("stable", True), ("dit_b", True)]
)
def test_diffusion_networks_are_the_same(name, small):
    row = {**workloads.CPU, **workloads.GPU}[name]
    model, shape, _ = torch_side._network(row.smaller() if small else row, small)
    theirs = sum(p.numel() for p in model.parameters())
    if name == "dit_b":  # diffusers gives every block embedders of its own, all but one of which its files repeat
        theirs -= sum(p.numel() for block in model.transformer_blocks[1:] for p in block.norm1.emb.parameters())
    assert shape[0] == (row.smaller() if small else row).batch
    assert parameters(row.smaller() if small else row, small) == theirs


@pytest.mark.parametrize("name", ["dcgan", "wgan_gp", "vae", "pix2pix", "cyclegan", "singan", "stylegan2", "triplane"])
def test_other_networks_are_the_same(name):
    row = workloads.CPU[name].smaller()
    make = getattr(torch_translation, name) if name in workloads.TRANSLATIONS else torch_side._gan
    games = {"singan": torch_singan, "stylegan2": torch_stylegan2, "triplane": torch_triplane}
    make = getattr(games[name], name) if name in games else make
    _, models = (torch_side._vae if name == "vae" else make)(row, False)
    assert parameters(row, True) == sum(p.numel() for model in models for p in model.parameters())
