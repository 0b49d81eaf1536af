"""The progress bar, and the plain lines where there is no terminal."""

from __future__ import annotations

import io

from jaxgen.runs.progress import Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_without_a_terminal_progress_is_a_line_every_ten_seconds():
    out, clock = io.StringIO(), Clock()
    progress = Progress(10_000, 2_000, stream=out, clock=clock)
    for images in range(2_025, 7_001, 25):
        clock.now += 0.25  # 100 images a second
        progress.update(images, {"g/loss": 0.5})
    progress.close()
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert all(
        "of 10,000 images" in line and "100 images/s" in line and "g/loss 0.5" in line for line in lines[:4]
    )
    assert "3,000 of" in lines[0] and "left" in lines[0]


def test_progress_can_be_silent():
    out = io.StringIO()
    progress = Progress(10, 0, enabled=False, stream=out)
    progress.update(10, {"a": 1.0})
    progress.note("words")
    progress.close()
    assert out.getvalue() == ""


def test_the_bar_counts_all_images_and_shows_scalars():
    out = io.StringIO()
    progress = Progress(1000, 400, enabled=True, stream=out)
    progress.update(1000, {"loss": 0.125})
    progress.note("a line")
    progress.close()
    assert "100%" in out.getvalue() and "loss=0.125" in out.getvalue() and "a line\n" in out.getvalue()
