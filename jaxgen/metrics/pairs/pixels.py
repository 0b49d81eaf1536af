"""Compares paired images pixel by pixel: PSNR, SSIM, absolute and squared error, one number per image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import correlate1d

from jaxgen.errors import UserError
from jaxgen.metrics.pairs.base import PairMetric

RANGE = 255.0
WINDOWS = {"gaussian": 11, "uniform": 7}  # sides, in pixels


class PSNR(PairMetric):
    """PSNR is the peak signal-to-noise ratio; see `psnr`."""

    better = "higher"
    note = "In dB, of values up to 255; the mean of the pairs' own."

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return psnr(a, b)

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        with np.errstate(divide="ignore"):
            return 10 * np.log10(RANGE**2 / _means_inside(np.square, a, b, region))


class SSIM(PairMetric):
    """SSIM is the structural similarity, in the Gaussian window; see `ssim`."""

    better = "higher"
    note = "Gaussian window of 11x11, standard deviation 1.5; mean over channels."

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return ssim(a, b)

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        """Returns the means over the windows whose centre is in the region."""
        return ssim(a, b, region=region)

    def check_size(self, shape: tuple[int, int, int], name: str) -> None:
        if min(shape[:2]) < WINDOWS["gaussian"]:
            raise UserError(f"ssim needs images of at least 11x11 pixels, its window; those of {name!r} are smaller.")


class L1(PairMetric):
    """L1 is the mean absolute difference; see `absolute_error`."""

    note = "Mean absolute difference of values up to 255."

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return absolute_error(a, b)

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        return _means_inside(np.abs, a, b, region)


class L2(PairMetric):
    """L2 is the root of the mean squared difference; see `squared_error`."""

    note = "Root of the mean squared difference of values up to 255."

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return np.sqrt(squared_error(a, b))

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        return np.sqrt(_means_inside(np.square, a, b, region))


def _means_inside(
    function: Callable[[np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, region: np.ndarray
) -> Float[np.ndarray, " N"]:
    """Returns `[N]` means of a function of the differences over the pixels of a region; NaN where it is empty."""
    pairs = zip(_pairs(a, b), region, strict=True)
    return np.array([function(x - y)[inside].mean() if inside.any() else np.nan for (x, y), inside in pairs])


def absolute_error(a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` mean absolute differences of uint8 images `[N, H, W, C]`, in [0, 255]. Raises as `psnr` does."""
    return np.array([np.abs(x - y).mean() for x, y in _pairs(a, b)])


def squared_error(a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` mean squared differences of uint8 images `[N, H, W, C]`, in [0, 255**2]. Raises as `psnr` does."""
    return np.array([np.square(x - y).mean() for x, y in _pairs(a, b)])


def psnr(a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` peak signal-to-noise ratios in dB, 10 log10(255**2 / squared error); infinite for equal images.

    Args:
      a, b: uint8 `[N, H, W, C]`, the pairs in order.

    Raises:
      UserError: for other types, unequal shapes or no images.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(RANGE**2 / squared_error(a, b))


def ssim(
    a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], window: str = "gaussian",
    region: Bool[np.ndarray, "N H W"] | None = None,
) -> Float[np.ndarray, " N"]:  # fmt: skip
    """Returns `[N]` structural similarities in [-1, 1], 1 for equal images (Wang et al. 2004, Eq. 13).

    It is the mean over channels and over all positions where the window is inside the image, with the constants 0.01
    and 0.03.

    Args:
      a, b: uint8 `[N, H, W, C]`, the pairs in order.
      window: "gaussian", 11x11 pixels with a standard deviation of 1.5 and plain covariances, as in the paper; or
        "uniform", 7x7 pixels and unbiased covariances, scikit-image's default. They are different numbers: name it.
      region: bool `[N, H, W]`; only windows whose centre is in it count. An image without such a window has NaN.

    Raises:
      UserError: for other types, unequal shapes, no images, images smaller than the window, or an unknown window.
    """
    if window not in WINDOWS:
        raise UserError(f"SSIM has no window {window!r}; it is one of {', '.join(WINDOWS)}.")
    side = WINDOWS[window]
    size = np.shape(a)[1:3]
    if min(size, default=side) < side:
        raise UserError(f"SSIM with the {window} window needs images of at least {side}x{side}, not {size}.")
    if window == "gaussian":
        weights = np.exp(-0.5 * ((np.arange(side) - side // 2) / 1.5) ** 2)
        correction = 1.0
    else:
        weights = np.ones(side)
        correction = side**2 / (side**2 - 1)
    weights /= weights.sum()
    found = (_similarities(x, y, weights, correction) for x, y in _pairs(a, b))
    if region is None:
        return np.array([float(local.mean()) for local in found])
    half = side // 2
    inside = region[:, half : size[0] - half, half : size[1] - half]
    both = zip(found, inside, strict=True)
    return np.array([float(local[centres].mean()) if centres.any() else np.nan for local, centres in both])


def _similarities(x: np.ndarray, y: np.ndarray, weights: np.ndarray, correction: float) -> np.ndarray:
    """Returns `[h, w, C]` similarities, one for each position where the window is inside the image."""
    half = len(weights) // 2

    def local(z):
        for axis in (0, 1):
            z = correlate1d(z, weights, axis=axis)
        return z[half : z.shape[0] - half, half : z.shape[1] - half]

    mean_x, mean_y = local(x), local(y)
    variances = correction * (local(x * x) + local(y * y) - mean_x**2 - mean_y**2)
    covariance = correction * (local(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return similarity / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))


def _pairs(a: np.ndarray, b: np.ndarray):
    """Returns an iterator over pairs of float64 images `[H, W, C]`."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UserError(f"Images are compared as uint8, not {a.dtype} and {b.dtype}.")
    if a.shape != b.shape or a.ndim != 4 or not a.size:
        raise UserError(f"Images are compared in pairs of equal shape [N, H, W, C], not {a.shape} and {b.shape}.")
    return ((x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a, b, strict=True))
