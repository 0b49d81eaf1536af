"""Gives a guidance the logits of its classifier."""

from __future__ import annotations

import jax.numpy as jnp

from jaxgen.arrays import Array, Tree
from jaxgen.diffusion.guidance import ClassifierLogits, Guidance
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.networks.layers.stateless import apply_params


def classifier_logits(guidance: Guidance, schedule: Schedule, params: Tree) -> ClassifierLogits:
    """Returns the guidance's network: of noisy images and times if it `sees_time`, else of clean images."""
    network = guidance.classifier
    if network is None:
        raise UserError("config.guidance.network is missing: the network of the classifier.")

    def logits(x: Array, t: Array) -> Array:
        inputs: tuple[Array, ...] = (x,)
        if getattr(network, "sees_time", False):
            t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
            inputs = append_dims(schedule.input_scale(t), x) * x, schedule.conditioning(t)
        with gradients_in_loops():
            found = apply_params(network, params, *inputs)
        return found[0] if isinstance(found, tuple) else found

    return logits
