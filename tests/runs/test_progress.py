"""The progress bar, and the plain lines where there is no terminal."""

from __future__ import annotations

import io

from jaxgen.runs.progress import Progress, Steps


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
    assert all("of 10,000 images" in line and "100 images/s" in line and "g/loss 0.5" in line for line in lines[:4])
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


def test_the_rate_is_without_the_time_of_compilation():
    out, clock = io.StringIO(), Clock()
    progress = Progress(1000, 0, stream=out, clock=clock)
    for images, now in ((10, 50.0), (20, 51.0), (150, 64.0)):  # the first ten images took 50 seconds
        clock.now = now
        progress.update(images)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("10 of 1,000 images") and "images/s" not in lines[0] and "left" not in lines[0]
    assert "10 images/s" in lines[1] and "150 of" in lines[1]


def test_a_long_evaluation_says_how_far_it_is(caplog):
    caplog.set_level("INFO", "jaxgen")
    clock = Clock()
    steps = Steps("sampling", 1000, clock)
    for images in range(100, 1001, 100):
        clock.now += 4
        steps.done(images)
    assert caplog.messages == [f"sampling: {n} of 1,000 images" for n in (300, 600, 900)]
