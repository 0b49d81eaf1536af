"""The quiz in a browser: played from the first pair to the saved file, in a headless Chromium on this machine alone.

The page stands unchanged in a frame of a page that plays it. The player looks at the pixels that are shown, bright ones
being real, knows nothing of how the truth is sealed, and answers as it is told to.
"""

from __future__ import annotations

import contextlib
import html
import http.server
import json
import queue
import re
import shutil
import subprocess
import threading
import urllib.parse

import numpy as np
import pytest

from jaxgen.metrics.analysis.human import fool_rate
from jaxgen.report import quiz
from jaxgen.report.answers import read_answers

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no chromium on the PATH")

SWITCHES = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1200,900",
]  # fmt: skip

PLAYER = """<!doctype html><body style="margin:0"><script>
const plan = PLAN, frame = document.createElement("iframe"), log = [];
Object.assign(frame, { src: "quiz.html", width: plan.window[0], height: plan.window[1] });
const rest = (ms) => new Promise((done) => setTimeout(done, ms));
const of = (id) => frame.contentDocument.getElementById(id);
const press = (key, more) => frame.contentWindow.dispatchEvent(
  new frame.contentWindow.KeyboardEvent("keydown", { key, ...more }));
const give = (side) => plan.keys ? press(side === "a" ? "ArrowLeft" : "ArrowRight") : of(side).click();
const until = (holds) => new Promise((done) => {
  const look = () => holds() && (watch.disconnect(), done());
  const watch = new MutationObserver(look);
  watch.observe(frame.contentDocument.body, { subtree: true, attributes: true, childList: true });
  look();
});
const light = (id) => {
  const image = of(id).querySelector("img"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return values.reduce((sum, value) => sum + value, 0);
};
frame.addEventListener("load", async () => {
  press("ArrowLeft");  // before the start: of no effect
  of("begin").click();
  for (const [i, fooled] of plan.fooled.entries()) {
    await until(() => of("count").textContent === `Pair ${i + 1} of ${plan.fooled.length}` &&
                      !of("a").classList.contains("covered"));
    const began = performance.now();
    press("ArrowRight");  // too fast, held down, with a modifier: of no effect
    const real = light("a") > light("b") ? "a" : "b", fake = real === "a" ? "b" : "a";
    const image = of("a").querySelector("img"), style = getComputedStyle(image);
    const width = image.getBoundingClientRect().width, room = of("a").clientWidth;
    const seen = { width, room, rendering: style.imageRendering };
    await rest(plan.ms[i]);
    press("ArrowLeft", { repeat: true });
    press("ArrowLeft", { ctrlKey: true });
    seen.visibility = style.visibility;
    seen.ms = performance.now() - began;
    give(fooled ? fake : real);
    log.push({ ...seen, verdict: of("verdict").textContent });
  }
  press("ArrowLeft");  // after the end
  fetch("done", { method: "POST", body: JSON.stringify({ log, page: of("result").outerHTML }) });
});
document.body.append(frame);
</script>"""


@contextlib.contextmanager
def served(pages):
    """Serves `{path: text}` on this machine; yields its address and a queue of what is posted."""
    posted: queue.Queue = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            text = pages.get(self.path, "").encode()
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self):
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", posted
        server.shutdown()


def play(tmp_path, fooled, *, keys=True, ms=None, shape=(8, 8, 1), window=(1000, 800), **options):
    """Plays a quiz with these answers; gives the file it saves, what its end shows, and the player's log."""
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 100, (len(fooled), *shape), dtype=np.uint8)
    path = quiz.write_quiz(tmp_path / "quiz.html", dark, dark[::-1] + np.uint8(150), **options)
    plan = {"fooled": [bool(f) for f in fooled], "ms": ms or [150] * len(fooled), "keys": keys, "window": window}
    pages = {"/": PLAYER.replace("PLAN", json.dumps(plan), 1), "/quiz.html": path.read_text()}
    with served(pages) as (address, posted):
        command = [BROWSER, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = posted.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait(timeout=20)
    text = found["page"]
    link = re.search('id="save"[^>]*href="data:application/json;charset=utf-8,([^"]*)"', text)
    saved = tmp_path / re.search('id="save"[^>]*download="([^"]*)"', text)[1]
    saved.write_text(urllib.parse.unquote(html.unescape(link[1])))
    shown = {key: re.search(f'id="{key}"[^>]*>([^<]*)<', text)[1] for key in ("rate", "interval", "fooled", "median")}
    rows = re.search('<tbody id="answers">(.*?)</tbody>', text, re.S)[1]
    return saved, shown, re.findall("<tr>.*?</tr>", rows, re.S), found["log"]


def check_times(found, log, times):
    """The file's times are those that the player took, which waited at least as long as it was told to."""
    np.testing.assert_allclose(found.milliseconds, [entry["ms"] for entry in log], atol=20)
    assert (found.milliseconds > np.asarray(times) - 20).all()


def test_all_right_by_keyboard(tmp_path):
    times = [150, 400, 300, 250, 850, 200]
    details = {"run": "</script>", "step": 3}
    saved, shown, rows, log = play(tmp_path, [0] * 6, ms=times, details=details, title="t", seed=5)
    found = read_answers(saved)
    rate = fool_rate(found)
    assert (rate.fooled, rate.pairs) == (0, 6) and found.details == details
    check_times(found, log, times)
    stored = json.loads(saved.read_text())
    assert stored["summary"]["fool_rate"] == 0 and stored["summary"]["median_ms"] == rate.median_ms
    np.testing.assert_allclose(stored["summary"]["interval_95"], (rate.low, rate.high), atol=1e-12)
    assert stored["quiz"]["seed"] == 5 and re.fullmatch(r"quiz-[0-9a-f]{6}-[\d-]+\.json", saved.name)
    assert shown["rate"] == "0 %" and shown["fooled"] == "0 of 6"
    assert shown["median"] == f"{rate.median_ms / 1000:.1f} s"
    assert shown["interval"].startswith(f"95 % interval 0 % to {100 * rate.high:.0f} %")
    assert len(rows) == 6 and all("right" in row and row.count("<img") == 2 for row in rows)
    assert {(entry["width"], entry["rendering"]) for entry in log} == {(384, "pixelated")}  # 48 for one
    assert {entry["verdict"] for entry in log} == {""}  # none before the end


def test_all_wrong_by_click(tmp_path):
    saved, shown, rows, _ = play(tmp_path, [1] * 5, keys=False, shape=(5, 9, 3))
    rate = fool_rate(read_answers(saved))
    assert (rate.value, rate.high) == (1, 1) and shown["rate"] == "100 %" and shown["fooled"] == "5 of 5"
    assert shown["interval"].startswith(f"95 % interval {100 * rate.low:.0f} % to 100 %")
    assert all("fooled" in row for row in rows)


def test_some_of_each_under_a_limit_with_feedback(tmp_path):
    """An early choice leaves the next pair its whole time."""
    fooled, times = [1, 0, 0, 1, 0, 0, 0], [300, 400, 1200, 300, 1100, 1100, 150]
    saved, shown, rows, log = play(tmp_path, fooled, ms=times, limit_ms=1000, feedback=True)
    found = read_answers(saved)
    np.testing.assert_array_equal(found.fooled, fooled)
    assert found.limit_ms == 1000 and shown["fooled"] == "2 of 7" and shown["rate"] == "29 %"
    check_times(found, log, times)
    np.testing.assert_array_equal(["fooled" in row for row in rows], fooled)
    assert [entry["visibility"] for entry in log] == ["hidden" if ms > 1000 else "visible" for ms in times]
    assert [entry["verdict"] == "Right" for entry in log] == [not f for f in fooled]


def test_in_a_narrow_window_images_are_still_enlarged_by_whole_pixels(tmp_path):
    *_, log = play(tmp_path, [0, 1], window=(390, 800))
    for entry in log:
        assert entry["width"] % 8 == 0 and 120 < entry["width"] < entry["room"] < 200
        assert entry["rendering"] == "pixelated"


def test_an_image_larger_than_its_place_is_reduced_and_smooth(tmp_path):
    *_, log = play(tmp_path, [0, 1], shape=(300, 900, 1))
    for entry in log:
        assert 300 < entry["width"] < entry["room"] and entry["rendering"] == "auto"
