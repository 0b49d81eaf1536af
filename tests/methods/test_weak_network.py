"""Autoguidance by a weaker model, of the model's own architecture or of one of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_methods import ddpm_config

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.diffusion.prediction_types import V
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.runs.setup import make_method

NARROW = section(
    name="unet", out_channels=1, channels=4, channel_multipliers=(1,), blocks=1, attention_resolutions=(),
    middle_attention=False, norm_groups=2,
)  # fmt: skip
AUTOGUIDANCE = section(name="autoguidance", scale=2.5)


def weights(network, seed):
    """All different from zero, so that everything has a say."""
    arguments = (jnp.zeros((2, 8, 8, 1)), jnp.zeros(2), jnp.zeros(2, jnp.int32))
    shapes = jax.eval_shape(lambda key: network.init(key, *arguments)["params"], jax.random.key(0))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.1 * random.normal(size=x.shape).astype(np.float32), shapes)


def guided(guidance, params):
    """The guided prediction's value at one (x, t), and x, t, label."""
    config = ddpm_config()
    config.data.num_classes = 3
    config.guidance = guidance
    method = make_method(config)
    x, t = jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.full(2, 0.4)
    batch = {"label": jnp.array([0, 2])}
    now = method.guided(Model(params(method), {}), batch)(x, t)
    return method, np.asarray(now.to(V()).value), x, t, batch


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("guidance", "narrow"),
    [
        (AUTOGUIDANCE, False),
        (section(**AUTOGUIDANCE, network=NARROW), True),
        (section(name="compose", first=section(name="unguided"), then=section(**AUTOGUIDANCE, network=NARROW)), True),
    ],
    ids=["own", "narrow", "composed"],
)
def test_the_weaker_model_is_the_network_that_is_asked_for(guidance, narrow):
    """By hand: both networks at (x, t), v = weak + 2.5 (strong - weak)."""
    weak_network = build(NARROW, "network", "config.guidance.network", num_classes=3) if narrow else None

    def params(method):
        return {"denoiser": weights(method.network, 0), "weak": weights(weak_network or method.network, 1)}

    method, got, x, t, batch = guided(guidance, params)
    assert method.required_groups == ("weak",)
    found = params(method)
    time = method.schedule.conditioning(t)
    seen = (method.schedule.input_scale(t).reshape(-1, 1, 1, 1) * x, time, batch["label"])
    strong = method.network.apply({"params": found["denoiser"]}, *seen)
    weak = (weak_network or method.network).apply({"params": found["weak"]}, *seen)
    assert np.abs(strong - weak).max() > 0.1
    np.testing.assert_allclose(got, weak + 2.5 * (strong - weak), atol=2e-5)


def test_a_misspelt_key_of_the_weaker_network_is_named():
    wrong = section(**AUTOGUIDANCE, network=section(name="unet", chanels=4))
    with pytest.raises(UserError, match=r"config\.guidance\.network\.chanels.*channels"):
        build(wrong, "guidance", "config.guidance")
