"""One diffusion method with parts: text to image, upsampling, unCLIP's decoder and others are configs of it."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.config import defaults, section
from jaxgen.methods.base import Model
from jaxgen.runs.setup import make_method

SIZE, CHANNELS, COUNT = 16, 3, 2
ENCODER = {"name": "text_encoder", "vocabulary": 9, "length": 5, "width": 8, "depth": 1, "heads": 2}
TOWER = {"name": "text_tower", "vocabulary": 9, "length": 5, "width": 8, "depth": 1, "heads": 2, "mlp_features": 16}
AUTOENCODER = {
    "name": "autoencoder_kl", "out_channels": 3, "channels": 8, "channel_multipliers": (1, 2), "blocks": 1,
    "latent_channels": 4, "norm_groups": 4,
}  # fmt: skip


def unet(**options):
    usual = {"channels": 8, "channel_multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "norm_groups": 4}
    return section(name="unet", **{**usual, **options})


def text(**options):
    return section(name="text", network=section(**ENCODER), **options)


# {system: (method, the groups that learn, those that are given, the entries that it reads)}
SYSTEMS = {
    "GLIDE": (  # Nichol et al. 2022, section 4: all tokens as context, the last one in the class's place
        {"network": unet(context_dim=8, vector_dim=8, out_channels=6), "learned_variance": True,
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.2)}},
        {"denoiser", "text"}, set(), {"tokens"},
    ),
    "Imagen": (  # Saharia et al. 2022: a frozen text encoder
        {"network": unet(context_dim=8, vector_dim=8), "prediction_type": "v",
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.1, learns=False)}},
        {"denoiser"}, {"text"}, {"tokens"},
    ),
    "Imagen's upsampler": (  # with noise conditioning augmentation: vectors of the text and of the level
        {"network": unet(context_dim=8, vector_dim=8 + 32),
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.1, learns=False),
                   "image": section(name="image", noise=0.5)}},
        {"denoiser"}, {"text"}, {"tokens", "condition"},
    ),
    "SR3": (  # Saharia et al. 2021
        {"network": unet(), "schedule": section(name="continuous_cosine"), "parts": {"image": section(name="image")}},
        {"denoiser"}, set(), {"condition"},
    ),
    "unCLIP's decoder": (  # Ramesh et al. 2022, section 2.1
        {"network": unet(context_dim=8, vector_dim=6),
         "parts": {"embedding": section(name="embedding", tokens=4, width=8, dropout=0.1), "text": text(dropout=0.5)}},
        {"denoiser", "text", "embedding"}, set(), {"tokens", "embedding"},
    ),
    "text and image in latents": (
        {"name": "latent_diffusion", "autoencoder": section(**AUTOENCODER), "scale": 0.5, "label_dropout": 0.1,
         "network": unet(context_dim=8, out_channels=4), "text": section(**ENCODER),
         "parts": {"image": section(name="image", dropout=0.1)}},
        {"denoiser", "text"}, {"autoencoder"}, {"tokens", "condition"},
    ),
    "the same, spelt out": (
        {"codec": section(name="latents", autoencoder=section(**AUTOENCODER), scale=0.5),
         "network": unet(context_dim=8, out_channels=4), "parts": {"text": text(dropout=0.1), "image": "image"}},
        {"denoiser", "text"}, {"autoencoder"}, {"tokens", "condition"},
    ),
    "labels of their own dropout": (
        {"network": unet(), "parts": {"label": section(name="label", dropout=0.3), "image": "image"}},
        {"denoiser"}, set(), {"label", "condition"},
    ),
    "a transformer": (
        {"network": section(name="dit", width=16, depth=1, heads=2, time_features=16, vector_dim=6, context_dim=8),
         "parts": {"text": text(), "embedding": "embedding", "image": "image"}},
        {"denoiser", "text"}, set(), {"tokens", "embedding", "condition"},
    ),
}  # fmt: skip


def config(options):
    made = defaults()
    usual = {"name": "ddpm", "schedule": section(name="cosine"), "network": unet()}
    made.method = section(**ConfigDict({**usual, **options}))
    made.sampler = section(name="ddim", steps=2, clip=False)
    made.data.update(
        source="caption_shapes",
        resolution=SIZE,
        channels=CHANNELS,
        num_classes=3 if "label" in str(options.get("parts")) else 0,
    )
    return made


def batch():
    random = np.random.default_rng(0)
    return {
        "image": jnp.asarray(random.uniform(-1, 1, (COUNT, SIZE, SIZE, CHANNELS)), jnp.float32),
        "condition": jnp.asarray(random.uniform(-1, 1, (COUNT, 4, 4, CHANNELS)), jnp.float32),
        "tokens": jnp.asarray([[4, 5, 1, 0, 0], [6, 7, 8, 4, 1]], jnp.int32),
        "embedding": jnp.asarray(random.normal(size=(COUNT, 6)), jnp.float32),
        "label": jnp.asarray([0, 2], jnp.int32),
    }


def begin(method, batch):
    given, memory = method.untrained(jax.random.key(1), batch)
    params, carried = method.init(jax.random.key(0), batch, 0, given, {}, memory)
    return Model({**given, **params}, {**memory, **carried}), params, given


SLOW = {"Imagen", "text and image in latents", "the same, spelt out", "labels of their own dropout"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SYSTEMS])
def test_a_system_is_a_config(name):
    options, learned, frozen, entries = SYSTEMS[name]
    method = make_method(config(options))
    assert {*method.conditions} == entries and {*method.required_groups} == frozen
    assert {group for turn in method.turns(0) for group in turn.groups} == learned
    told = {k: v for k, v in batch().items() if k in entries}
    seen = {**told, "image": batch()["image"]}

    def everything(key):
        model, params, _ = begin(method, seen)
        assert params.keys() == learned

        def loss(learned):
            state = SimpleNamespace(memory=model.memory)
            return method.loss({**model.params, **learned}, seen, key, state)[0]

        value, slopes = jax.value_and_grad(loss)(params)
        keys = jax.random.split(key, COUNT)
        return value, slopes, method.sample(model, keys, told), method.scores(model, keys, seen)

    value, slopes, drawn, _ = jax.eval_shape(everything, jax.random.key(0))
    assert value.shape == () and slopes.keys() == learned
    assert drawn.shape == (COUNT, SIZE, SIZE, CHANNELS)


def test_a_guided_sampler_takes_all_parts():
    for name in ("GLIDE", "unCLIP's decoder"):
        made = config(SYSTEMS[name][0])
        made.guidance = section(name="classifier_free", scale=2.0)
        method = make_method(made)
        told = {k: v for k, v in batch().items() if k in method.conditions}
        drawn = jax.eval_shape(
            lambda method=method, told=told: method.sample(
                begin(method, batch())[0], jax.random.split(jax.random.key(0), COUNT), told
            )
        )
        assert drawn.shape == (COUNT, SIZE, SIZE, CHANNELS)
