"""The quiz in a browser: played from the first pair to the saved file, in a headless Chromium without network.

A driver is put into a copy of the page. It looks at the pixels that are on the screen, bright ones being real, knows
nothing of how the page seals the truth, and answers as it is told to.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import urllib.parse

import numpy as np
import pytest

from jaxgen.metrics.human import fool_rate
from jaxgen.report import quiz
from jaxgen.report.answers import read_answers

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no chromium on the PATH")

SWITCHES = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--virtual-time-budget=120000", "--dump-dom",
]  # fmt: skip

DRIVER = """
(async () => {
  const plan = PLAN, of = (id) => document.getElementById(id);
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const log = (text) => { document.body.dataset.log = (document.body.dataset.log || "") + text + ";"; };
  const light = (id) => {
    const image = of(id).querySelector("img"), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return values.reduce((sum, value) => sum + value, 0);
  };
  const press = (key, more) => dispatchEvent(new KeyboardEvent("keydown", { key, ...more }));
  const give = (side) => plan.keys ? press(side === "a" ? "ArrowLeft" : "ArrowRight") : of(side).click();
  press("ArrowLeft");  // before the start: of no effect
  of("begin").click();
  for (let i = 0; i < plan.fooled.length; i++) {
    while (of("count").textContent !== `Pair ${i + 1} of ${plan.fooled.length}` ||
           of("a").classList.contains("covered")) await rest(10);
    const real = light("a") > light("b") ? "a" : "b", fake = real === "a" ? "b" : "a";
    const image = of("a").querySelector("img"), inside = image.closest("button").getBoundingClientRect();
    log(`${innerWidth}x${innerHeight}:${of("a").clientWidth}:${image.style.width}:${image.style.height}`);log(`${image.getBoundingClientRect().width}/${getComputedStyle(image).imageRendering}/${inside.width}`);
    press("ArrowRight");  // too fast, held down, with a modifier: of no effect
    await rest(plan.ms[i] - 10);
    press("ArrowLeft", { repeat: true });
    press("ArrowLeft", { ctrlKey: true });
    if (plan.covered) log(getComputedStyle(image).visibility);
    await rest(10);
    give(plan.fooled[i] ? fake : real);
    log(of("verdict").textContent);
  }
  press("ArrowLeft");  // after the end
})();
"""


def play(tmp_path, fooled, *, keys=True, ms=None, covered=False, shape=(8, 8, 1), window=(1000, 800), **options):
    """Plays a quiz with these answers; gives the file it saves, what its end shows, and the driver's log."""
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 100, (len(fooled), *shape), dtype=np.uint8)
    path = quiz.write_quiz(tmp_path / "quiz.html", dark, dark[::-1] + np.uint8(150), **options)
    plan = {"fooled": [bool(f) for f in fooled], "ms": ms or [200] * len(fooled), "keys": keys, "covered": covered}
    driver = f"<script>{DRIVER.replace('PLAN', json.dumps(plan))}</script></body>"
    copy = tmp_path / "driven.html"
    copy.write_text(path.read_text().replace("</body>", driver))
    own = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={window[0]},{window[1]}", copy.as_uri()]
    done = subprocess.run([BROWSER, *SWITCHES, *own], capture_output=True, text=True, timeout=60)
    text = done.stdout
    link = re.search('id="save"[^>]*href="data:application/json;charset=utf-8,([^"]*)"', text)
    assert link, f"the quiz did not come to its end: {done.stderr[-2000:]}"
    name = re.search('id="save"[^>]*download="([^"]*)"', text)[1]
    saved = tmp_path / name
    saved.write_text(urllib.parse.unquote(html.unescape(link[1])))
    shown = {key: re.search(f'id="{key}"[^>]*>([^<]*)<', text)[1] for key in ("rate", "interval", "fooled", "median")}
    rows = re.search('<tbody id="answers">(.*?)</tbody>', text, re.S)[1]
    log = html.unescape(re.search('data-log="([^"]*)"', text)[1]).split(";")[:-1]
    return saved, shown, re.findall("<tr>.*?</tr>", rows, re.S), log


def test_all_right_by_keyboard(tmp_path):
    times = [200, 400, 300, 250, 1250, 200]
    details = {"run": "</script>", "step": 3}
    saved, shown, rows, log = play(tmp_path, [0] * 6, ms=times, details=details, title="t", seed=5)
    found = read_answers(saved)
    rate = fool_rate(found)
    assert (rate.fooled, rate.pairs) == (0, 6) and found.details == details
    assert np.abs(found.milliseconds - times).max() < 60
    stored = json.loads(saved.read_text())
    assert stored["summary"]["fool_rate"] == 0 and stored["summary"]["median_ms"] == rate.median_ms
    np.testing.assert_allclose(stored["summary"]["interval_95"], (rate.low, rate.high), atol=1e-12)
    assert stored["quiz"]["seed"] == 5 and re.fullmatch(r"quiz-[0-9a-f]{6}-[\d-]+\.json", saved.name)
    assert shown["rate"] == "0 %" and shown["fooled"] == "0 of 6" and shown["median"] == "0.3 s"
    assert shown["interval"].startswith(f"95 % interval 0 % to {100 * rate.high:.0f} %")
    assert len(rows) == 6 and all("right" in row and row.count("<img") == 2 for row in rows)
    widths = {tuple(entry.split("/")[:2]) for entry in log if "/" in entry}
    assert widths == {("384", "pixelated")}  # 48 screen pixels for one of the image
    assert {entry for entry in log if "/" not in entry} == {""}  # no verdict before the end


def test_all_wrong_by_click(tmp_path):
    saved, shown, rows, _ = play(tmp_path, [1] * 5, keys=False, shape=(5, 9, 3))
    rate = fool_rate(read_answers(saved))
    assert (rate.value, rate.high) == (1, 1) and shown["rate"] == "100 %" and shown["fooled"] == "5 of 5"
    assert shown["interval"].startswith(f"95 % interval {100 * rate.low:.0f} % to 100 %")
    assert all("fooled" in row for row in rows)


def test_some_of_each_under_a_limit_with_feedback(tmp_path):
    """An early choice leaves the next pair its whole time."""
    fooled, times = [1, 0, 0, 1, 0, 0, 0], [300, 300, 1200, 300, 1200, 1200, 300]
    saved, shown, rows, log = play(tmp_path, fooled, ms=times, limit_ms=1000, feedback=True, covered=True)
    found = read_answers(saved)
    np.testing.assert_array_equal(found.fooled, fooled)
    assert found.limit_ms == 1000 and shown["fooled"] == "2 of 7" and shown["rate"] == "29 %"
    assert np.abs(found.milliseconds - times).max() < 60
    np.testing.assert_array_equal(["fooled" in row for row in rows], fooled)
    assert log[1::3] == ["hidden" if ms > 1000 else "visible" for ms in times]
    assert [entry == "Right" for entry in log[2::3]] == [not f for f in fooled]


def test_in_a_narrow_window_images_are_still_enlarged_by_whole_pixels(tmp_path):
    *_, log = play(tmp_path, [0, 1], window=(520, 700))
    for entry in log[::2]:
        width, rendering, room = entry.split("/")
        assert float(width) % 8 == 0 and 160 < float(width) < float(room) < 260 and rendering == "pixelated"


def test_an_image_larger_than_its_place_is_reduced_and_smooth(tmp_path):
    *_, log = play(tmp_path, [0, 1], shape=(300, 900, 1))
    for entry in log[::2]:
        width, rendering, room = entry.split("/")
        assert 300 < float(width) < float(room) and rendering == "auto"
