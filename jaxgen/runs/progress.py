"""Shows the progress of a run, as a bar or as plain lines. Of several processes only the first one shows it."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

from jaxgen.report.numbers import duration, number

log = logging.getLogger("jaxgen")

PLAIN_SECONDS = 10.0  # least time between two progress lines where there is no terminal


class Progress:
    """Shows the progress of a run on stderr: a bar on a terminal, elsewhere a plain line at most every ten seconds.

    Args:
      total_images: the number of training images that the run is to see.
      start_images: the number that a resumed run has seen before.
      enabled: None chooses by the stream, True always shows a bar, and False shows nothing.
      stream: where the progress is written; by default stderr.
      clock: a function that returns the time in seconds.
    """

    def __init__(
        self,
        total_images: int,
        start_images: int = 0,
        enabled: bool | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = sys.stderr if stream is None else stream
        self._total, self._clock = total_images, clock
        self._plain = enabled is None and not self._stream.isatty()
        self._images = self._last_images = start_images
        self._last_time = clock()
        self._mark: tuple[int, float] | None = None  # images and time that the rate counts from: after compilation
        self._scalars: dict[str, float] = {}
        self._bar = None
        if enabled or (enabled is None and not self._plain):
            self._bar = tqdm(
                total=total_images, initial=start_images, unit=" images", unit_scale=True, file=self._stream,
                dynamic_ncols=True, smoothing=0.1,
            )  # fmt: skip

    def update(self, images: int, scalars: Mapping[str, float] | None = None) -> None:
        """Shows that `images` training images have been seen, in all and not since the last call."""
        self._scalars.update({name: float(value) for name, value in (scalars or {}).items()})
        began = self._mark is None and images > self._images
        if began:
            self._mark = (images, self._clock())
        self._images = images
        if self._bar is not None:
            if began:
                self._bar.unpause()  # the time of compilation is no part of the rate
            if scalars:
                self._bar.set_postfix({k: number(v) for k, v in self._scalars.items()}, refresh=False)
            self._bar.update(images - self._bar.n)
        elif self._plain and self._clock() - self._last_time >= PLAIN_SECONDS:
            self._line()

    def note(self, text: str) -> None:
        """Prints a separate line, above the bar where there is one; prints nothing when not enabled."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._plain:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the bar, or prints the last line."""
        if self._bar is not None:
            self._bar.close()
        elif self._plain and self._images > self._last_images:
            self._line()

    def _line(self) -> None:
        now = self._clock()
        since, began = self._mark or (self._images, now)
        rate = (self._images - since) / max(now - began, 1e-9)
        left = (self._total - self._images) / rate if rate > 0 else math.inf
        words = [f"{self._images:,} of {self._total:,} images", *([f"{number(rate)} images/s"] if rate > 0 else [])]
        if self._images < self._total and (rate > 0 or now > began):
            words.append(f"{duration(left)} left" if math.isfinite(left) else "no progress")
        words += [f"{name} {number(value)}" for name, value in self._scalars.items()]
        print(", ".join(words), file=self._stream, flush=True)
        self._last_images, self._last_time, self._mark = self._images, now, (self._images, now)


class Steps:
    """Logs a line of progress at most every ten seconds while many images are drawn or scored.

    Args:
      what: what is done, in a word or two, such as "sampling".
      total: the number of images.
      clock: a function that returns the time in seconds.
    """

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic):
        self._what, self._total, self._clock = what, total, clock
        self._last = clock()

    def done(self, images: int) -> None:
        """Says that so many images are done; the last ones need no line."""
        now = self._clock()
        if images < self._total and now - self._last >= PLAIN_SECONDS:
            log.info("%s: %s of %s images", self._what, f"{images:,}", f"{self._total:,}")
            self._last = now
