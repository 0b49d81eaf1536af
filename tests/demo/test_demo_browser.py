"""The demo in a headless Chromium, and asked by twenty users at once: needs gradio, and playwright for the first."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
import running
import tiny
from tiny_methods import ddpm_config, gan_config

from jaxgen.files.pictures import read_picture
from jaxgen.report.images import save_png

gradio_client = pytest.importorskip("gradio_client")
pytest.importorskip("gradio")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.nightly
SECONDS = 200
TOLD = "[...document.querySelectorAll('#told textarea')].some(e => e.value.includes({!r}))"


def trained(config, tmp_path_factory):
    config.train.update(total_images=16)
    folder = tmp_path_factory.mktemp("demo") / "run"
    running.run(config, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(ddpm_config(), tmp_path_factory)


@pytest.fixture(scope="module")
def served(run):
    with serving(run) as found:
        yield found


@contextlib.contextmanager
def serving(run):
    """The demo of a tiny run, in a process of its own: its address and its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = tiny.command("--mode=demo", f"--workdir={run}", f"--port={port}")
    log = run.parent / "demo.log"
    with log.open("w") as out:
        process = subprocess.Popen(words, cwd=tiny.ROOT, env=tiny.environment(), stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}/"
    for _ in range(SECONDS):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            break
        assert process.poll() is None, log.read_text()
        time.sleep(1)
    yield address, process.pid
    process.terminate()
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def page(served):
    with opened(served[0]) as found:
        yield found


@contextlib.contextmanager
def opened(address):
    """A page in a headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as started:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = started.chromium.launch(executable_path=BROWSER, args=switches)
        found = browser.new_page()
        found.set_default_timeout(SECONDS * 1000)
        found.goto(address)
        yield found
        browser.close()


def draw(page, said: str) -> list[str]:
    """Clicks, waits for a sentence, and returns the addresses of the files."""
    page.click("#draw")
    page.wait_for_function(TOLD.format(said))
    page.wait_for_timeout(500)
    return [link.get_attribute("href") for link in page.query_selector_all("#files a[href]")]


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def test_load_draw_change_the_seed_upload_download_and_draw_it_again(page, run, tmp_path):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    first = draw(page, "4 drawn with seed 0.")
    assert len(first) == 5 and len(page.query_selector_all("#images img")) >= 4
    whole = fetched(first[0])
    page.fill("#seed textarea, #seed input", "8")
    second = draw(page, "4 drawn with seed 8.")
    assert fetched(second[0]) != whole
    for seed in ("-3", "x"):
        page.fill("#seed textarea, #seed input", seed)
        assert draw(page, "Seed is") == []
    # to the bit, from the downloaded file alone
    with page.expect_download() as download:
        page.fill("#seed textarea, #seed input", "0")
        draw(page, "4 drawn with seed 0.")
        page.locator("#files a[href]").nth(1).click()
    download.value.save_as(tmp_path / "image.png")
    like = f"--like={tmp_path / 'image.png'}"
    done = tiny.spawn("--mode=sample", f"--workdir={run}", like, f"--out={tmp_path / 'out'}")
    assert done.status == 0, done.err
    assert (tmp_path / "out" / "samples.png").read_bytes() == whole
    # a picture of the user's, given back at strength 0; one that is none is a sentence
    save_png(tmp_path / "given.png", np.full((8, 8, 1), 200, np.uint8))
    (tmp_path / "broken.png").write_text("no picture")
    page.set_input_files("#picture_image input[type=file]", tmp_path / "given.png")
    page.wait_for_selector("#picture_image img")
    page.fill("#strength textarea, #strength input", "0")
    page.fill("#seed textarea, #seed input", "9")
    (tmp_path / "kept.png").write_bytes(fetched(draw(page, "4 drawn with seed 9.")[1]))
    assert (np.asarray(read_picture(tmp_path / "kept.png")[1].convert("L")) == 200).all()
    assert {re.match(r"\w+://([^/:]*)", url)[1] for url in asked if url.startswith("http")} == {"127.0.0.1"}


def test_the_way_is_shown_while_it_forms_and_the_images_are_the_same(tmp_path_factory):
    config = ddpm_config()
    config.sampler.steps = 8
    with serving(trained(config, tmp_path_factory)) as (address, _), opened(address) as page:
        page.fill("#sampler_steps textarea, #sampler_steps input", "8")
        unseen = fetched(draw(page, "4 drawn with seed 0.")[0])
        page.evaluate("""() => { window.seen = new Set(); new MutationObserver(() => {
            for (const image of document.querySelectorAll('#way img')) window.seen.add(image.src);
        }).observe(document.body, {subtree: true, childList: true, attributes: true}) }""")
        page.check("#with_watch input")
        page.fill("#seed textarea, #seed input", "1")
        draw(page, "4 drawn with seed 1.")  # it compiles
        page.fill("#seed textarea, #seed input", "0")
        assert fetched(draw(page, "4 drawn with seed 0.")[0]) == unseen
        assert page.evaluate("window.seen.size") >= 1
        assert not page.is_visible("#way")


def test_a_place_on_the_map_of_latents_is_drawn(tmp_path_factory):
    with serving(trained(gan_config(), tmp_path_factory)) as (address, _), opened(address) as page:
        told = "[...document.querySelectorAll('#plane_told textarea')].some(e => e.value.includes({!r}))"
        page.get_by_role("tab", name="Latent space").click()
        page.click("#plane")
        page.wait_for_function(told.format("The map of seed 0."))
        drawn = page.locator("#plane_map img")
        drawn.wait_for()
        box = drawn.bounding_box()
        side = min(box["width"], box["height"])  # the map is square, in the middle of its box
        left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
        page.mouse.click(left + side * 0.75, top + side * 0.25)
        page.wait_for_function(told.format("x = 0.7"))
        assert re.search(r"x = 0\.7\d, y = 0\.7\d\.", page.locator("#plane_told textarea").input_value())
        image = page.locator("#plane_place img")
        image.wait_for()
        first = fetched(image.get_attribute("src"))
        page.fill("#plane_x input[type=number]", "0.1")
        page.locator("#plane_x input[type=number]").blur()
        page.locator("#plane_x input[type=range]").press("ArrowLeft")
        page.wait_for_timeout(2000)
        assert fetched(page.locator("#plane_place img").get_attribute("src")) != first


def seen(address: str, seed: int) -> np.ndarray:
    """Asks as a user of their own, and returns the picture of all samples."""
    client = gradio_client.Client(address, verbose=False)
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/draw"]["parameters"]
    given = {one["parameter_name"]: one.get("parameter_default") for one in info}
    by_label = {one["label"]: one["parameter_name"] for one in info}
    told, _, _, files, _ = client.predict(
        **{**given, by_label["Seed"]: str(seed), by_label["Images"]: 2}, api_name="/draw"
    )
    assert told.startswith(f"2 drawn with seed {seed}."), told
    return np.asarray(read_picture(files[0])[1])


def test_twenty_requests_at_once_have_the_images_of_their_own_seeds(served):
    alone = [seen(served[0], seed) for seed in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda seed: seen(served[0], seed), range(20)))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))
    assert len({one.tobytes() for one in alone}) == 20


def test_memory_does_not_grow_with_requests(served):
    """A leak of one batch's program for each request would be megabytes; what the allocator keeps is less."""

    def resident() -> float:
        text = (tiny.pathlib.Path("/proc") / str(served[1]) / "statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    for seed in range(20):
        seen(served[0], seed)
    before = resident()
    for seed in range(200):
        seen(served[0], seed)
    print(f"memory: {before:.1f} MiB before, {resident():.1f} MiB after 200 requests")
    assert resident() - before < 60
