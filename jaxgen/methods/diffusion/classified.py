"""Gives a guidance what its networks say of images: a classifier's logits, or the similarity to a text by a CLIP."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.diffusion.guidance import ClassifierLogits, Guidance, Similarity
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.methods.contrastive.retrieval import logit_scale
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.pretrained.clip import unit


def classifier_logits(guidance: Guidance, schedule: Schedule, params: Tree) -> ClassifierLogits:
    """Returns the guidance's network: of noisy images and times if it `sees_time`, else of clean images."""
    network = guidance.classifier
    if network is None:
        raise UserError("config.guidance.network is missing: the network of the classifier.")

    def logits(x: Array, t: Array) -> Array:
        with gradients_in_loops():
            found = apply_params(network, params, *_seen(network, schedule, x, t))
        return found[0] if isinstance(found, tuple) else found

    return logits


def clip_similarity(guidance: Guidance, schedule: Schedule, params: Params, batch: Batch) -> Similarity:
    """Returns exp(logit_scale) cos(f(x, t), g(c)) of the guidance's CLIP for the batch's texts c.

    The image tower f is told the time if it `sees_time`. 1 / temperature = exp(logit_scale) is at most 100.

    Raises:
      UserError: the towers map into spaces of different widths.
    """
    towers = guidance.towers
    assert towers is not None
    text = unit(_last(apply_params(towers.text, params["clip_text"], batch[towers.entry])))
    scale = logit_scale(jax.tree.leaves(params["clip_scale"])[0])

    def similarity(x: Array, t: Array) -> Array:
        with gradients_in_loops():
            found = _last(apply_params(towers.image, params["clip_image"], *_seen(towers.image, schedule, x, t)))
        if found.shape != text.shape:
            raise UserError(
                f"config.guidance.image gives embeddings of {found.shape[-1]} numbers and config.guidance.text of "
                f"{text.shape[-1]}: name both towers of one CLIP, with their projection."
            )
        return scale * (unit(found) * text).sum(-1)

    return similarity


def guides_untrained(guidance: Guidance, schedule: Schedule, shape: tuple[int, ...], key: Array) -> Params:
    """Returns fresh weights of the networks of a guidance that look at images `(H, W, C)`, for a plan."""
    x, t = jnp.zeros((1, *shape)), jnp.zeros(1)
    found: Params = {}
    if guidance.classifier is not None:
        network = guidance.classifier
        found["classifier"] = init_params(network, key, *_seen(network, schedule, x, t))
    towers = guidance.towers
    if towers is not None:
        tokens = jnp.zeros((1, getattr(towers.text, "length", 0) or 1), jnp.int32)
        found["clip_image"] = init_params(towers.image, key, *_seen(towers.image, schedule, x, t))
        found["clip_text"] = init_params(towers.text, key, tokens)
        found["clip_scale"] = {"logit_scale": jnp.zeros(())}
    return found


def _seen(network: nn.Module, schedule: Schedule, x: Array, t: Array) -> tuple[Array, ...]:
    """Returns what a network is called with: noisy images and their time if it `sees_time`, else the images alone."""
    if not getattr(network, "sees_time", False):
        return (x,)
    t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
    return append_dims(schedule.input_scale(t), x) * x, schedule.conditioning(t)


def _last(found: Array | tuple[Array, ...]) -> Array:
    return found[-1] if isinstance(found, tuple) else found
