"""Compares images and texts by their embeddings: the contrastive loss, its temperature, and retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxgen.arrays import Array

MOST_SCALE = 100.0  # 1 / temperature is at most this (Radford et al. 2021, section 2.5)
CHUNK = 1024  # queries whose similarities are held at a time


@jax.custom_vjp
def logit_scale(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Returns 1 / temperature = min(exp(log_scale), 100).

    Gradient descent that would lead above the limit stands still there and may come back, as if the parameter itself
    were clipped behind each update.
    """
    return jnp.minimum(jnp.exp(log_scale), MOST_SCALE)


def _forward(log_scale: Array) -> tuple[Array, Array]:
    return logit_scale(log_scale), log_scale


def _backward(log_scale: Array, gradient: Array) -> tuple[Array]:
    outwards = (log_scale >= np.log(MOST_SCALE)) & (gradient < 0)
    return (jnp.where(outwards, 0.0, gradient * logit_scale(log_scale)),)


logit_scale.defvjp(_forward, _backward)


def info_nce(
    image: Float[Array, "B D"], text: Float[Array, "B D"], scale: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the symmetric contrastive loss of B pairs, and the share of images whose own text is the nearest.

    L = 1/2 mean_i [-log softmax_j(scale u_i . v_j)[i]] + 1/2 mean_j [-log softmax_i(scale u_i . v_j)[j]]
    (Radford et al. 2021, Figure 3; van den Oord et al. 2018, Eq. 4). The pairs are those of the whole batch on all
    devices: under jit the arrays are global, and the partitioner gathers the rows that a device lacks.

    Args:
      image, text: unit embeddings, row i of one belongs to row i of the other.
      scale: 1 / temperature.
    """
    logits = scale * jnp.matmul(image, text.T, precision="highest")
    own = jnp.diagonal(logits)
    of_images = jax.nn.logsumexp(logits, axis=1) - own
    of_texts = jax.nn.logsumexp(logits, axis=0) - own
    nearest = (logits.argmax(axis=1) == jnp.arange(len(logits))).mean()
    return 0.5 * (of_images.mean() + of_texts.mean()), nearest


def recalls(
    queries: Float[np.ndarray, "N D"],
    found: Float[np.ndarray, "N D"],
    same: Shaped[np.ndarray, "N K"],
    most: Sequence[int],
) -> list[float]:
    """Returns the share of queries that have a right answer among their k nearest, for each k of `most`.

    Args:
      queries, found: unit embeddings; row i of one is the partner of row i of the other.
      same: what makes an answer right: row j answers query i where `same[j] == same[i]` in every column. The examples'
        own numbers count the partner alone.
      most: the numbers k; where there are fewer than k answers, all are found.
    """
    hits = np.zeros(len(most))
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        similar = queries[rows].astype(np.float64) @ found.T.astype(np.float64)
        right = (same[rows, None] == same[None]).all(axis=-1)
        # the best right answer is among the k nearest where fewer than k others are nearer; ties count against it
        best = np.where(right, similar, -np.inf).max(axis=1, keepdims=True)
        before = ((similar >= best) & ~right).sum(axis=1)
        hits += [(before < k).sum() for k in most]
    return (hits / len(queries)).tolist()


def nearest(queries: Float[np.ndarray, "N D"], found: Float[np.ndarray, "M D"]) -> Int[np.ndarray, " N"]:
    """Returns for each query the row of `found` with the highest cosine; of equal ones the first. All are unit vectors.

    Raises:
      ValueError: there is nothing to be found.
    """
    if not len(found):
        raise ValueError("There are no vectors to find the nearest of.")
    parts = [queries[i : i + CHUNK] @ found.T for i in range(0, len(queries), CHUNK)]
    return np.concatenate([part.argmax(axis=1) for part in parts]) if parts else np.zeros(0, int)
