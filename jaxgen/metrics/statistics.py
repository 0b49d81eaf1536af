"""Published statistics of a reference set: the mean and the covariance of its features, in place of its images.

pytorch-fid, EDM and ADM publish them as `.npz` files with `mu` `[D]` and `sigma` `[D, D]`, of features of Inception
(D = 2048), with the unbiased covariance. The files do not say how many images they are of. A Fréchet distance needs
nothing else of its reference; other metrics need the images.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files.arrays import Archive
from jaxgen.files.paths import user_path
from jaxgen.metrics.base import Metric, SetMetric
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.sets import KEYS
from jaxgen.metrics.summary import Summary

MEAN, COVARIANCE = "mu", "sigma"
PICKLES = (".pkl", ".pickle")
# Rounding may make a covariance this much asymmetric, as a share of its largest value.
ASYMMETRY = 1e-4


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Holds what a file says of a reference.

    Attributes:
      name: the file's name as the user gave it.
      mean: float64 `[D]`.
      covariance: float64 `[D, D]`.
    """

    name: str
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def label(self) -> str:
        """Returns what the record of a number calls its reference."""
        return f"{self.name} (published statistics)"

    @property
    def summary(self) -> Summary:
        """Returns the statistics as metrics read them."""
        moments = Moments.of_statistics(self.mean, self.covariance)
        return Summary(moments.count, moments)

    def check_network(self, network: FeatureNetwork) -> None:
        """Raises a UserError unless the network gives as many features as the statistics are of, where that is known.

        No weights are read.
        """
        if network.width not in (None, len(self.mean)):
            raise UserError(
                f"{self.name!r} holds statistics of {len(self.mean)} features, and the network {network.name!r} gives "
                f"{network.width}; name the network that the statistics were made with."
            )


def open_statistics(path: str, named_by: str) -> Statistics | None:
    """Returns what `read_statistics` reads, or None where a path is no archive with `mu` and `sigma` and no pickle."""
    if not path.endswith((".npz", *PICKLES)):  # a folder, or a data source
        return None
    file = user_path(path, named_by)
    if file.suffix == ".npz" and file.is_file():
        with Archive(file, named_by) as archive:
            if not {MEAN, COVARIANCE} <= set(archive.names):
                return None
    elif file.suffix not in PICKLES or not file.is_file():
        return None
    return read_statistics(path, named_by)


def has_images(path: str) -> bool:
    """Returns False for an archive that holds statistics and no images, and True for anything else."""
    if not path.endswith(".npz"):
        return True
    file = user_path(path, "the reference")
    if not file.is_file():
        return True
    with Archive(file) as archive:
        return not {MEAN, COVARIANCE} <= set(archive.names) or bool(set(KEYS) & set(archive.names))


def read_statistics(path: str | os.PathLike[str], named_by: str) -> Statistics:
    """Reads a file of statistics.

    Args:
      path: an .npz file with `mu` and `sigma`.
      named_by: what gives the file's name, for messages.

    Raises:
      UserError: for a file that is missing or damaged, or arrays that are no mean and covariance.
    """
    name = os.fspath(path)
    if name.endswith(PICKLES):
        raise UserError(
            f"{named_by}={name} is a pickle, which may run any code and is not read; load it where you trust it, and "
            "save it by numpy.savez(FILE, mu=..., sigma=...)."
        )
    with Archive(user_path(name, named_by), named_by) as archive:
        if not {MEAN, COVARIANCE} <= set(archive.names):
            raise UserError(
                f"{named_by}={name} has no arrays 'mu' and 'sigma', the mean and the covariance of features; it has "
                f"{', '.join(archive.names) or 'none'}."
            )
        shapes = [archive.header(key).shape for key in (MEAN, COVARIANCE)]
        if len(shapes[0]) != 1 or not shapes[0][0] or shapes[1] != (*shapes[0], *shapes[0]):
            raise UserError(
                f"'mu' of {name!r} has shape {shapes[0]} and 'sigma' has {shapes[1]}; [D] and [D, D] are needed."
            )
        mean, covariance = archive.read(MEAN), archive.read(COVARIANCE)
    return Statistics(name, *_checked(name, mean, covariance))


def suffice(metric: Metric) -> bool:
    """Returns whether a metric needs nothing of its reference but statistics."""
    return isinstance(metric, SetMetric) and metric.needs == {"moments"}


def need_images(metric: Metric, name: str) -> UserError:
    """Returns the error for a metric that is to be compared with statistics alone."""
    return UserError(
        f"{metric.name!r} needs the images of its reference, and {name} holds statistics of them, which are enough for "
        "a metric of moments such as 'fid'; leave it out, or give the images."
    )


def _checked(name: str, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for key, values in ((MEAN, mean), (COVARIANCE, covariance)):
        if values.dtype.kind != "f":
            raise UserError(f"{key!r} of {name!r} is {values.dtype}; floating-point numbers are needed.")
        if not np.isfinite(values).all():
            raise UserError(f"{key!r} of {name!r} has values that are not finite (NaN or infinity).")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    gap, largest = np.abs(covariance - covariance.T).max(), np.abs(covariance).max()
    if gap > ASYMMETRY * largest or (np.diagonal(covariance) < 0).any():
        raise UserError(f"'sigma' of {name!r} is no covariance: it is not symmetric, or a variance is below 0.")
    return mean, covariance
