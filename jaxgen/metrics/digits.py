"""The judge of 8x8 digits: a small classifier whose weights come with the package.

Its Fréchet distance is not the FID: other features, another data set. The weights were made by

    python main.py --config=configs/judge_digits.py --workdir=runs/judge_digits
    python -m jaxgen.interop.judge_weights runs/judge_digits
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.metrics.frechet import frechet_distance
from jaxgen.networks.classifier import Classifier

WEIGHTS = "digits_judge.npz"
CLASSES = 10


def network() -> Classifier:
    """The judge's architecture; `configs/judge_digits.py` trains the same."""
    return Classifier(num_classes=CLASSES, widths=(12, 16, 16), features=32)


@functools.cache
def weights() -> dict[str, Any]:
    """The shipped parameters, float32."""
    with resources.files("jaxgen.metrics").joinpath(WEIGHTS).open("rb") as file:
        flat = np.load(file, allow_pickle=False)
        params: dict[str, Any] = {}
        for name in flat.files:
            layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = flat[name].astype(np.float32)
    return params


def judge(images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 10]` class probabilities and `[N, 32]` features of uint8 digits `[N, 8, 8, 1]`.

    Raises:
      UserError: for images of another shape.
    """
    if images.shape[1:] != (8, 8, 1):
        raise UserError(f"The digits judge sees images of shape (8, 8, 1), not {images.shape[1:]}.")
    padded = np.concatenate([images, np.zeros((-len(images) % batch, 8, 8, 1), np.uint8)])
    parts = [_apply(weights(), padded[i : i + batch]) for i in range(0, len(padded), batch)]
    probabilities, features = (np.concatenate(x)[: len(images)] for x in zip(*parts, strict=True))
    return probabilities, features


@jax.jit
def _forward(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = network().apply({"params": params}, images.astype(np.float32) / 127.5 - 1)
    return jax.nn.softmax(logits), features


def _apply(params: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, features = jax.block_until_ready(_forward(params, images))
    return np.asarray(probabilities, np.float64), np.asarray(features, np.float64)


def entropy(probabilities: np.ndarray) -> float:
    """Entropy of how often each class is the likeliest one, as a share of its maximum log(classes)."""
    classes = probabilities.shape[1]
    share = np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(classes))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose likeliest class is their label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def digits(evidence: Evidence) -> dict[str, Score]:
    """Fréchet distance in the judge's features, class entropy, mean confidence; label accuracy where asked for."""
    probabilities, features = judge(evidence.samples)
    real_probabilities, real = judge(evidence.held_out)
    _, floor = judge(evidence.floor)
    noise_probabilities, noise = judge(evidence.noise)
    common = {"n": len(evidence.samples), "reference": evidence.held_out_name}
    scores = {
        "frechet_digits": Score(
            frechet_distance(features, real),
            floor=frechet_distance(floor, real),
            noise=frechet_distance(noise, real),
            note=f"In the features of the digits judge; floor: {len(floor)} training images.",
            **common,
        ),
        "class_entropy": Score(
            entropy(probabilities),
            floor=entropy(real_probabilities),
            better="higher",
            note="Share of the maximum: 1 if all ten digits are equally frequent.",
            **common,
        ),
        "confidence": Score(
            float(probabilities.max(axis=1).mean()),
            floor=float(real_probabilities.max(axis=1).mean()),
            noise=float(noise_probabilities.max(axis=1).mean()),
            better="higher",
            note="Mean probability of the judge's choice.",
            **common,
        ),
    }
    if evidence.labels is not None:
        scores["label_accuracy"] = Score(
            accuracy(probabilities, evidence.labels),
            floor=accuracy(real_probabilities, evidence.held_out_labels),
            better="higher",
            note="Share of samples in which the judge sees the class that was asked for.",
            **common,
        )
    return scores
