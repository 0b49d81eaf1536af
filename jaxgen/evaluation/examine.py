"""Shows what the numbers saw: samples beside their nearest training images, and the best and the worst of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.metrics.distributions.manifold import realism
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairwise import nearest
from jaxgen.report.images import PADDING, grid

SHOWN = 12  # samples in a picture of neighbours
NEIGHBOURS = 3
RANKED = 10  # samples in a picture of the best or the worst
COLUMNS = 5  # of that picture
BLOCKS = 3  # of rows, side by side
SEARCHED = 10_000  # training images whose features are looked at, at most
BALLS = 3  # k of the realism score


@dataclasses.dataclass(frozen=True)
class Figure:
    """Holds a picture of samples with its title, a sentence and its scores.

    Attributes:
      name: the name of its file, without the ending.
      title: a title of two or three words.
      text: a sentence about it.
      picture: uint8 `[H, W, 3]`.
      scores: a number for each sample, in reading order.
    """

    name: str
    title: str
    text: str
    picture: np.ndarray
    scores: list[float]


def examine(images: EvaluationImages, network: FeatureNetwork | None) -> list[Figure]:
    """Returns pictures of an evaluated model's samples; none where they have another size than the training images.

    Args:
      network: the network whose features neighbours and realism are taken in; None leaves those out.
    """
    if images.samples.shape[1:] != images.train.shape[1:]:
        return []  # samples of a stage that is not the last may be smaller than the training images
    figures = [_nearest_pixels(images)]
    if network is not None:
        figures.append(_nearest_features(images, network))
        if len(images.held_out) > BALLS:
            figures += _ranked(images, network)
    return figures


def _nearest_pixels(images: EvaluationImages) -> Figure:
    shown, train = (x.reshape(len(x), -1) for x in (images.samples[:SHOWN], images.train))
    found, squares = nearest(shown, train, k=min(NEIGHBOURS, len(images.train)))
    text = (
        f"In each row of a block: a sample, then the nearest of {len(images.train):,} training images by pixels; the "
        "numbers, block by block, are the distances to the first, of values in [-1, 1]."
    )
    picture = _beside(images.samples[:SHOWN], images.train[found])
    distances = np.sqrt(squares[:, 0]) / 127.5
    return Figure("nearest_pixels", "Nearest training images, by pixels", text, picture, distances.tolist())


def _nearest_features(images: EvaluationImages, network: FeatureNetwork) -> Figure:
    count = len(images.train)
    train = images.train[np.linspace(0, count - 1, min(count, SEARCHED)).astype(int)]
    seen = images.summary(network, "samples").kept_features[:SHOWN]
    found, squares = nearest(seen, network(train).features, k=min(NEIGHBOURS, len(train)))
    text = (
        f"The same in the features of the network {network.name}, of {len(train):,} training images; the numbers are "
        "the distances to the first, in those features."
    )
    picture = _beside(images.samples[:SHOWN], train[found])
    distances = np.sqrt(squares[:, 0])
    return Figure("nearest_features", "Nearest training images, by features", text, picture, distances.tolist())


def _ranked(images: EvaluationImages, network: FeatureNetwork) -> list[Figure]:
    samples, held_out = images.summary(network, "samples"), images.summary(network, "held_out")
    scores = realism(samples.kept_features, held_out.kept_features, k=BALLS)
    order = np.argsort(-scores, kind="stable")
    what = (
        f"of {len(scores):,} samples by realism (Kynkäänniemi et al. 2019, Eq. 3) in the features of {network.name}: "
        "from 1 on they are where real images are"
    )
    figures = []
    for name, title, text, chosen in (
        ("most_real", "Best samples", f"The best {what}; the best first.", order[:RANKED]),
        ("least_real", "Worst samples", f"The worst {what}; the worst first.", order[::-1][:RANKED]),
    ):
        picture = grid(images.samples[chosen], columns=COLUMNS)
        figures.append(Figure(name, title, text, picture, scores[chosen].tolist()))
    return figures


def _beside(samples: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Returns rows of a sample and its neighbours `[N, K, H, W, C]`, in blocks side by side, read block by block."""
    rows = np.concatenate([samples[:, None], neighbours], axis=1)
    high = -(-len(rows) // BLOCKS)
    blocks = [rows[i : i + high] for i in range(0, len(rows), high)]
    pictures = [grid(block.reshape(-1, *block.shape[2:]), columns=block.shape[1], pad=2) for block in blocks]
    tall = max(picture.shape[0] for picture in pictures)
    gap = pictures[0].shape[1] // 8
    parts = []
    for picture in pictures:
        below = ((0, tall - picture.shape[0]), (0, 0 if picture is pictures[-1] else gap), (0, 0))
        parts.append(np.pad(picture, below, constant_values=PADDING))
    return np.concatenate(parts, axis=1)
