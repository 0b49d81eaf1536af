"""Makes a quiz for people: a page that shows pairs of a generated and a held-out image and asks which is real.

    python main.py --workdir=W --mode=evaluate --quiz     writes W/quiz.html
    python -m jaxgen.report.quiz ANSWERS...               prints the fool rate of the files that people saved, pooled

The page is one HTML file that loads and sends nothing. Its source does not show directly which image is real: names are
digests of pixels, and the answers are combined with a random pad. They are not secret, since the pad is in it as well.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxgen.entry_point import Parser, a_path, entry_point
from jaxgen.errors import UserError
from jaxgen.files import strict_json, write_bytes
from jaxgen.metrics.analysis.human import FoolRate, fool_rate
from jaxgen.report.answers import FORMAT, read_answers
from jaxgen.report.images import to_rgb
from jaxgen.report.numbers import duration
from jaxgen.report.quiz_page import render


def write_quiz(
    path: epath.PathLike,
    samples: np.ndarray,
    real: np.ndarray,
    *,
    seed: int = 0,
    pairs: int = 50,
    title: str = "",
    details: Mapping[str, Any] | None = None,
    limit_ms: int = 0,
    feedback: bool = False,
) -> epath.Path:
    """Writes the quiz atomically as one HTML file, and returns its path.

    The seed alone decides which images form a pair, on which side each is shown, and in what order. No image is shown
    twice.

    Args:
      samples: images from the model, `[N, H, W, C]`, uint8 or floats in [-1, 1]; C is 1 or 3.
      real: held-out images, `[M, H, W, C]`, of the same size and types.
      seed: the random seed of the pairs.
      pairs: how many pairs to show; at most N and at most M are shown.
      title: one line about the model, shown at the start.
      details: plain values to record with the answers, such as run and step; they are shown at the end.
      limit_ms: milliseconds after which a pair is covered, while the choice stays open, as in HYPE's timed variant
        (Zhou et al. 2019; its masks and its staircase of times are left out); 0 shows it until the choice.
      feedback: whether the page says after each choice if it was right; people then learn while they are tested.

    Raises:
      UserError: there are no samples or no real images, their sizes or channels differ, or a number is below its
        minimum.
    """
    samples, real = np.asarray(samples), np.asarray(real)
    if samples.ndim != 4 or real.ndim != 4 or not len(samples) or not len(real):
        raise UserError(f"A quiz needs images [N, H, W, C] of both kinds, not {samples.shape} and {real.shape}.")
    if samples.shape[1:] != real.shape[1:]:
        raise UserError(
            f"Samples of shape {samples.shape[1:]} and real images of shape {real.shape[1:]} can be told by it: "
            "give both the same size and number of channels."
        )
    if pairs < 1 or limit_ms < 0:
        raise UserError(f"A quiz has at least one pair and a limit of at least 0 ms, not {pairs} and {limit_ms}.")
    data = {
        "format": FORMAT,
        "title": title,
        "details": dict(details or {}),
        "seed": seed,
        "limit_ms": limit_ms,
        "feedback": feedback,
        **_questions(samples, real, min(pairs, len(samples), len(real)), seed),
    }
    path = epath.Path(path)
    write_bytes(path, render(title, strict_json(data), len(data["pairs"]), limit_ms).encode())
    return path


def _questions(samples: np.ndarray, real: np.ndarray, count: int, seed: int) -> dict[str, Any]:
    """Returns the pictures by neutral names, the pairs of names in the order shown, and the sealed answers."""
    rng = np.random.default_rng(seed)
    generated = [_picture(image) for image in samples[rng.permutation(len(samples))[:count]]]
    held_out = [_picture(image) for image in real[rng.permutation(len(real))[:count]]]
    real_first = rng.integers(0, 2, count)
    pairs: list[list[str]] = []
    pictures: dict[str, str] = {}
    for i, (fake, true) in enumerate(zip(generated, held_out, strict=True)):
        both = (true, fake) if real_first[i] else (fake, true)
        pairs.append([name for name, _ in both])
        pictures |= dict(both)
    pad, spare = rng.integers(0, 16, (2, count))
    sealed = pad ^ ((spare & 14) | real_first)  # the lowest bit of pad ^ sealed is 1 if the first is real
    names = sorted(pictures)  # the names are digests, so their order says nothing
    return {
        "digest": hashlib.sha256(strict_json(pairs).encode()).hexdigest()[:16],
        "height": samples.shape[1],
        "width": samples.shape[2],
        "pairs": pairs,
        "pictures": {name: pictures[name] for name in names},
        "pad": "".join(f"{value:x}" for value in pad),
        "sealed": "".join(f"{value:x}" for value in sealed),
    }


def _picture(image: np.ndarray) -> tuple[str, str]:
    """Returns a name, which is a digest of the pixels, and the image as a PNG in base64."""
    pixels = to_rgb(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if image.shape[-1] == 1 and _is_grey(pixels) else pixels).save(buffer, "PNG")
    name = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]
    return name, base64.b64encode(buffer.getvalue()).decode()


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def sentence(rate: FoolRate) -> str:
    """Returns a fool rate in words, with its interval, its count and the median time of a choice."""
    return (
        f"fool rate {rate.value:.3f}, 95 % interval {rate.low:.3f} to {rate.high:.3f} "
        f"({rate.fooled} of {rate.pairs} pairs; chance is 0.5); median time {duration(rate.median_ms / 1000)}"
    )


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the fool rate of each file and of all together."""
    parser = Parser(
        prog="python -m jaxgen.report.quiz", description="The fool rate of the answers that quiz pages saved, pooled."
    )
    parser.add_argument("answers", metavar="ANSWERS", nargs="+", type=a_path("ANSWERS"), help="files that pages saved")
    paths = parser.parse_args(arguments).answers
    found = [read_answers(path) for path in paths]
    pooled = fool_rate(found)
    if len(found) > 1:
        for one in found:
            print(f"{one.name}: {sentence(fool_rate(one))}")
    print(f"all {len(found)}: {sentence(pooled)}" if len(found) > 1 else sentence(pooled))


if __name__ == "__main__":
    sys.exit(main())
