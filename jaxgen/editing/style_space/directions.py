"""Finds directions in W that mean something: by principal components, or by linear classifiers of what images show.

GANSpace (Haerkoenen et al. 2020) takes the principal components of the w of random z. InterFaceGAN (Shen et al. 2020)
takes the normal of the hyperplane which separates the w of images that show something from the others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxgen.errors import UserError

LEAST = 10  # images on each side of a hyperplane


class Principal(NamedTuple):
    """Holds the principal components of styles.

    Attributes:
      vectors: of length 1, the largest variance first; the largest value of each is positive.
      deviations: of the styles along them.
      mean: of the styles.
    """

    vectors: Float[np.ndarray, "K D"]
    deviations: Float[np.ndarray, " K"]
    mean: Float[np.ndarray, " D"]


class Boundary(NamedTuple):
    """Holds a hyperplane in W.

    Attributes:
      normal: of length 1, towards what shows the attribute.
      deviation: of the styles along it.
      accuracy: the mean of the accuracies on either side, of styles that the classifier did not learn from.
    """

    normal: Float[np.ndarray, " D"]
    deviation: float
    accuracy: float


def principal(w: Float[np.ndarray, "N D"], count: int) -> Principal:
    """Returns the first `count` principal components of styles.

    Raises:
      UserError: there are not as many.
    """
    from sklearn.decomposition import PCA

    most = min(len(w) - 1, w.shape[1])
    if not 1 <= count <= most:
        raise UserError(f"{len(w)} styles of {w.shape[1]} numbers have 1 to {most} components, not {count}.")
    found = PCA(count, svd_solver="full").fit(np.asarray(w, np.float64))
    largest = np.abs(found.components_).argmax(axis=1)
    signs = np.sign(found.components_[np.arange(count), largest])
    return Principal(found.components_ * signs[:, None], np.sqrt(found.explained_variance_), found.mean_)


def boundary(w: Float[np.ndarray, "N D"], shown: Bool[np.ndarray, " N"], seed: int = 0) -> Boundary:
    """Returns the hyperplane of a linear support vector machine between styles, learned from three quarters of them.

    Args:
      w: styles.
      shown: whether the image of each shows the attribute.
      seed: which quarter is left out.

    Raises:
      UserError: fewer than 10 images show the attribute, or fewer than 10 do not.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.svm import LinearSVC

    shown = np.asarray(shown, bool)
    if min(shown.sum(), (~shown).sum()) < LEAST:
        raise UserError(f"{shown.sum()} of {len(shown)} images show it; at least {LEAST} must, and as many must not.")
    w = np.asarray(w, np.float64)
    scale = w.std(axis=0) + 1e-12
    learned, held, of_learned, of_held = train_test_split(w / scale, shown, stratify=shown, random_state=seed)
    machine = LinearSVC(class_weight="balanced", random_state=seed, max_iter=10_000).fit(learned, of_learned)
    normal = machine.coef_[0] / scale
    normal = normal / np.linalg.norm(normal)
    right = machine.predict(held) == of_held
    accuracy = (right[of_held].mean() + right[~of_held].mean()) / 2
    return Boundary(normal, float((w @ normal).std()), float(accuracy))


def without(direction: Float[np.ndarray, " D"], others: Float[np.ndarray, "K D"]) -> Float[np.ndarray, " D"]:
    """Returns the part of a direction that leaves others alone, of length 1 (Shen et al. 2020, section 2.2).

    Raises:
      UserError: nothing is left of it.
    """
    basis = np.linalg.qr(np.asarray(others, np.float64).reshape(-1, len(direction)).T)[0]
    rest = direction - basis @ (basis.T @ direction)
    length = np.linalg.norm(rest)
    if length < 1e-6 * np.linalg.norm(direction):
        raise UserError("The direction lies in the span of the others: leave one of them out.")
    return rest / length
