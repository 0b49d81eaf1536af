"""The classification accuracy score says how much a classifier learns from samples alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int, UInt8

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.metrics.distributions.classes import Accuracy, check_labels, class_accuracy
from jaxgen.metrics.networks.extractor import Extractor


class AccuracyScore(NamedTuple):
    """Holds the accuracies of a classifier that learned from samples and of one that learned from real images.

    Attributes:
      samples: the accuracy on real test images of the classifier that learned from samples.
      real: that of the classifier that learned from real images in the same way, or None if there were none.
    """

    samples: Accuracy
    real: Accuracy | None


def classification_accuracy_score(
    train_images: UInt8[np.ndarray, "N H W C"],
    train_labels: Int[np.ndarray, " N"],
    test_images: UInt8[np.ndarray, "M H W C"],
    test_labels: Int[np.ndarray, " M"],
    network: nn.Module,
    steps: int = 1000,
    seed: int = 0,
    batch: int = 128,
    learning_rate: float = 2e-3,
    real: tuple[UInt8[np.ndarray, "R H W C"], Int[np.ndarray, " R"]] | None = None,
) -> AccuracyScore:
    """Returns how well a classifier that learns from samples does on real images (Ravuri & Vinyals 2019).

    The classifier learns from samples only and is tested on real images: the classification accuracy score. The paper
    trains a ResNet-50 to the end; here a small network learns for a given number of steps, by Adam with a
    cosine decay, so numbers compare only with equal networks and steps. The same arguments give the same number.

    Args:
      train_images, train_labels: samples, uint8 `[N, H, W, C]`, and the classes they were asked for, int `[N]`.
      test_images, test_labels: real images that neither the generator nor this classifier has seen, of equal shape.
      network: `x [B, H, W, C] in [-1, 1] -> (logits [B, K], features)`, such as `Classifier(num_classes=10)`.
      batch: images in a step; all of them where there are fewer.
      real: images and labels that the generator learned from; a second classifier of the same seed learns from these,
        and its accuracy is reported beside the score.

    Raises:
      UserError: for images that are not uint8, unequal shapes, labels out of range, or no steps.
    """
    if steps < 1 or batch < 1:
        raise UserError(f"A classifier learns for at least one step of at least one image, not {steps}, {batch}.")
    sets = [(train_images, train_labels), *([real] if real else [])]
    results = []
    for images, labels in (*sets, (test_images, test_labels)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != test_images.shape[1:]:
            raise UserError(f"A classifier learns from uint8 images [N, H, W, C], not {images.dtype} {images.shape}.")
        if labels.shape != images.shape[:1] or not len(labels):
            raise UserError(f"Each image needs a label: there are {len(images)} images and {labels.shape} labels.")
    for images, labels in sets:
        params = _fit(network, images, labels, steps, seed, min(batch, len(images)), learning_rate)
        logits = Extractor(_logits_of(network), params)(test_images)
        results.append(class_accuracy(logits, test_labels))
    return AccuracyScore(results[0], results[1] if real else None)


def _fit(
    network: nn.Module, images: np.ndarray, labels: np.ndarray, steps: int, seed: int, batch: int, rate: float
) -> Tree:
    """Returns the parameters after so many steps.

    The loop is Python's: convolution gradients in a scan are slow on a CPU.
    """
    key = jax.random.key(seed)
    params = _init(network, key, images[:1])
    check_labels(labels, jax.eval_shape(_logits_of(network), params, images[:1]).shape[1])
    opt_state = _optimiser(steps, rate).init(params)
    chance = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for step in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, chance.permutation(len(images))])
        now, order = order[:batch], order[batch:]
        batch_and_key = images[now], labels[now], jax.random.fold_in(key, step)
        params, opt_state = _update(network, steps, rate, params, opt_state, *batch_and_key)
    return jax.device_get(params)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3, 4))
def _update(
    network: nn.Module, steps: int, rate: float, params: Tree, opt_state: optax.OptState, x: jax.Array, y: jax.Array,
    key: jax.Array,
) -> tuple[Tree, optax.OptState]:  # fmt: skip
    def loss(params):
        logits, _ = network.apply({"params": params}, _scaled(x), train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = _optimiser(steps, rate).update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@functools.partial(jax.jit, static_argnums=0)
def _init(network: nn.Module, key: jax.Array, images: jax.Array) -> Tree:
    return network.init(key, _scaled(images))["params"]


def _optimiser(steps: int, rate: float) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


@functools.cache  # one function for each network, so that it is compiled once
def _logits_of(network: nn.Module) -> Callable[[Tree, jax.Array], jax.Array]:
    return lambda params, images: network.apply({"params": params}, _scaled(images))[0]


def _scaled(images: jax.Array) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 127.5 - 1
