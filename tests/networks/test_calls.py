"""A network of another kind than its method needs is refused in one sentence, whichever network it is."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny

from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.errors import UserError
from jaxgen.networks.layers.stateless import init_params
from jaxgen.runs.setup import make_method


class Silent(nn.Module):
    """A module without `__call__`."""

    width: int = 3


def shapes_of(config: str, role: str, network: str):
    """Traces the weights of a config's method with another network in one role."""
    made, _ = load_config(tiny.ROOT / "configs" / f"{config}.py")
    made.method[role] = section(name=network)
    if config == "ddpm_digits":
        made.data.num_classes = 0
    method = make_method(made)
    side = made.data.resolution
    batch = {"image": jnp.zeros((2, side, side, made.data.channels)), "label": jnp.zeros(2, jnp.int32)}

    def traced(batch):
        params, memory = method.init(jax.random.key(0), batch, 0, {}, {}, {})
        if config == "autoencoder_digits":
            method.decode(params, jnp.zeros((2, method.z_dim)))
        return params

    return jax.eval_shape(traced, batch)


@pytest.mark.parametrize(
    ("config", "role", "network", "why"),
    [
        ("ddpm_digits", "network", "decoder", "takes 'z' as Float[Array, 'B D'] there"),
        ("ddpm_digits", "network", "encoder", "takes 'label' as Int[Array, 'B'] there"),
        ("ddpm_digits", "network", "classifier", "takes 'train' as bool there"),
        ("ddpm_digits", "network", "autoencoder_kl", "too many positional arguments"),
        ("ddpm_digits", "network", "test_calls:Silent", "has no method '__call__'"),
        ("autoencoder_digits", "encoder", "unet", "has no 'outputs'"),
        ("autoencoder_digits", "decoder", "unet", "missing a required argument: 'time'"),
        ("autoencoder_digits", "decoder", "mlp_discriminator", "gives a dict, where the method takes one array"),
        ("autoencoder_digits", "decoder", "dcgan_generator", "carries batch_stats"),
        ("gan_digits", "generator", "decoder", "has no 'z_dim'"),
        ("gan_digits", "discriminator", "unet", "has no 'reads'"),
        ("classifier_digits", "network", "unet", "missing a required argument: 'time'"),
        ("classifier_digits", "network", "mlp_discriminator", "gives a dict, where the method takes a tuple of 2"),
        ("kl_autoencoder_digits", "network", "encoder", "has no 'encode'"),
    ],
)
def test_a_network_of_another_kind(config, role, network, why):
    with pytest.raises(UserError) as found:
        shapes_of(config, role, network)
    said = str(found.value)
    assert said.startswith(("config.method names", f"config.method.{role} names"))  # copies of it have lost their key
    assert why in said


def test_networks_that_fit_are_called():
    dense = jax.eval_shape(lambda: init_params(nn.Dense(3), jax.random.key(0), jnp.zeros((2, 5))))
    assert dense["kernel"].shape == (5, 3)
    sequence = nn.Sequential([nn.Dense(3), nn.relu])
    assert "layers_0" in jax.eval_shape(lambda: init_params(sequence, jax.random.key(0), jnp.zeros((2, 5))))
