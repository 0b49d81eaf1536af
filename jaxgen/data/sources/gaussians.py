"""`gaussians:<world>`: points in the plane from a mixture of Gaussians whose density is known.

    gaussians:ring8    8 modes on a circle of radius 0.8, standard deviation 0.008
    gaussians:grid25   5 x 5 modes 0.4 apart, -0.8 to 0.8, standard deviation 0.01

All modes weigh the same. Splits: `train` 50,000, `test` 10,000, each a fixed draw. A point is a grey image, one pixel
high and two wide:

    image   float32 [1, 2, 1]   x and y, nearly all within [-0.85, 0.85]
    label   int32 []            its mode

so config.data.resolution is (1, 2) and channels 1. Being float32, not uint8, it reaches the losses as it is; samples
written as images have 256 levels, 0.0078 apart. Leave config.data.flip off: it would swap x and y.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.data.source import Request, Source, check_labels, check_split
from jaxgen.errors import UserError, nearest

SIZES = {"train": 50_000, "test": 10_000}
SHAPE = (1, 2)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture has isotropic Gaussians of equal weight."""

    centres: np.ndarray  # [K, D], the means of the modes
    std: float  # the standard deviation of every mode along every axis

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Returns float64 `[N]` in nats, for points `[N, D]` or images that reshape to it; finite at any distance."""
        modes, dimensions = self.centres.shape
        points = np.asarray(points, np.float64).reshape(-1, dimensions)
        exponents = -np.square(points[:, None] - self.centres).sum(axis=2) / (2 * self.std**2)
        scale = np.log(modes) + dimensions * np.log(np.sqrt(2 * np.pi) * self.std)
        return np.logaddexp.reduce(exponents, axis=1) - scale

    def draw(self, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns points float64 `[count, 2]` of a mixture in the plane, and their modes, int32 `[count]`."""
        # Raw 64-bit draws: numpy promises their stream for ever, that of `normal` it does not.
        words = np.random.Philox(key=seed).random_raw(3 * count).reshape(3, count)
        radius, turn, mode = (words >> np.uint64(11)) * 2.0**-53
        modes = (mode * len(self.centres)).astype(np.int32)
        radius, turn = np.sqrt(-2 * np.log1p(-radius)), 2 * np.pi * turn  # Box and Muller
        return self.centres[modes] + self.std * np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1), modes


def ring(modes: int = 8, radius: float = 0.8, std: float = 0.008) -> Mixture:
    """Makes modes evenly spaced on a circle, counter-clockwise from the right."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return Mixture(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), std)


def grid(side: int = 5, spacing: float = 0.4, std: float = 0.01) -> Mixture:
    """Makes a grid of side x side modes, centred at the origin; x changes fastest."""
    places = spacing * (np.arange(side) - (side - 1) / 2)
    y, x = np.meshgrid(places, places, indexing="ij")
    return Mixture(np.stack([x.ravel(), y.ravel()], axis=1), std)


WORLDS = {"ring8": ring(), "grid25": grid()}


class Gaussians(Source):
    """Draws points of the plane from `WORLDS[argument]`; the resolution must be (1, 2) and the channels 1."""

    takes = "<world>"

    def __init__(self, request: Request):
        super().__init__(request)
        if request.argument not in WORLDS:
            raise UserError(
                f"Unknown world {request.argument!r} in the data source {self.name!r}: "
                f"{nearest(request.argument, WORLDS)}"
            )
        check_split(self.name, self.split, tuple(SIZES))
        if request.resolution != SHAPE or request.channels != 1:
            raise UserError(
                f"A point of {self.name!r} is a grey image of 1 x 2 pixels; set config.data.resolution=(1, 2) and "
                f"config.data.channels=1, not {request.resolution} and {request.channels}."
            )
        world = WORLDS[request.argument]
        points, modes = world.draw(list(SIZES).index(self.split), SIZES[self.split])
        check_labels(self.name, np.arange(len(world.centres)), request.num_classes)
        self.num_classes = request.num_classes or len(world.centres)
        self.arrays = {"image": points.astype(np.float32).reshape(-1, *SHAPE, 1), "label": modes}
