"""Makes the page of a demo with gradio: the controls of a model, what they draw, and a quiz."""

from __future__ import annotations

import contextlib
import contextvars
import html
import logging
import pathlib
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from jaxgen.demo.controls import MOST_IMAGES, Controls
from jaxgen.demo.request import read_place, read_request
from jaxgen.demo.studio import Studio
from jaxgen.entry_point import beyond_machine, disk_trouble
from jaxgen.errors import UserError, printable
from jaxgen.report.images import grid

log = logging.getLogger("jaxgen")
WAITING = 64  # requests that may wait; a further one is told so
KEEP = (600, 3600)  # every so many seconds, files that are older than so many are removed
MOST_BYTES = "32mb"  # of a file that is given
PAIRS = 10  # of a quiz
MAP = 8  # rows and columns of a map of the latent space
FAULT = "Something went wrong inside jaxgen; the terminal that runs the demo says what."
FRAME = (
    '<iframe style="width: 100%; height: 720px; border: 0" sandbox="allow-scripts allow-downloads" '
    'srcdoc="{}"></iframe>'
)
FONTS = ["system-ui", "sans-serif"]


def _as_sent(component: Any, read: Callable[[Any], Any]) -> Any:
    """Lets a component pass on what the browser sends: what is wrong with it is then one sentence of `read_request`, or
    of what reads pictures, where gradio would raise."""
    component.preprocess = read
    return component


def _path(payload: Any) -> str | None:
    """Returns the file that was uploaded; gradio has checked that it is one of those that it keeps."""
    return payload.path if payload is not None else None


def make_page(studio: Studio, folder: pathlib.Path) -> gr.Blocks:
    """Returns the page.

    Args:
      studio: what draws.
      folder: a folder of this process, in which each request has a folder of its own while it is answered.
    """
    controls = studio.controls
    with gr.Blocks(title=f"jaxgen: {studio.name}", analytics_enabled=False, delete_cache=KEEP) as page:
        base = studio.base
        gr.Markdown(f"## {html.escape(studio.name)}\n`{studio.config.method.name}`, at step {base.step:,}")
        with gr.Tab("Draw"):
            _draw_tab(studio, folder)
        if controls.plane:
            with gr.Tab("Latent space"):
                _plane_tab(studio)
        if controls.quiz:
            with gr.Tab("Which one is real?"):
                _quiz_tab(studio, folder)
    page.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False)
    return page


def _draw_tab(studio: Studio, folder: pathlib.Path) -> None:
    controls = studio.controls
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            parts = _components(controls)
            button = gr.Button("Draw", variant="primary", elem_id="draw")
        with gr.Column(scale=2):
            told = gr.Textbox(label="What happened", interactive=False, lines=1, max_lines=8, elem_id="told")
            images = gr.Gallery(
                show_label=False, columns=4, object_fit="contain", height="auto", format="png", elem_id="images",
                buttons=["download", "fullscreen"], elem_classes=["pixels"], interactive=False,
            )  # fmt: skip
            way = gr.Image(label="On the way", elem_id="way", visible=False, interactive=False, height=180,
                           format="png", elem_classes=["pixels"], buttons=[])  # fmt: skip
            panels = gr.Gallery(show_label=False, columns=2, object_fit="contain", format="png", elem_id="panels",
                                visible=False, interactive=False)  # fmt: skip
            files = gr.Files(label="PNG files: each carries its settings, and --mode=sample --like=FILE draws it again",
                             elem_id="files", interactive=False)  # fmt: skip

    def draw(*values: Any, progress: Any = gr.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008  # gradio's way
        yield from answer_draw(studio, folder, dict(zip(parts, values, strict=True)), progress)

    shown = [told, images, panels, files, way]
    button.click(draw, list(parts.values()), shown, api_name="draw", concurrency_id="model")


def answer_draw(
    studio: Studio, folder: pathlib.Path, values: Mapping[str, Any], progress: Callable[..., Any]
) -> Iterator[tuple[Any, ...]]:
    """Yields what happened, the images, the panels, the files and a picture of the way to the images.

    The first four stay as they are while the images are on their way. The request's folder lasts until its files are
    copied.
    """
    own = pathlib.Path(tempfile.mkdtemp(dir=folder))
    seen: queue.Queue[Any] = queue.Queue(1)  # the last (time, pictures) on the way, and at the end the answer

    def work() -> tuple[Any, ...]:
        request = read_request(studio.controls, values)

        def tell(done: int, what: str) -> None:
            progress((min(done, request.num), request.num), desc=what, unit="images")

        found = studio.draw(request, own, tell, lambda time, pictures: _replace(seen, (time, pictures)))
        said = f"{request.num} drawn with seed {request.seed}."
        images, panels = ([*map(str, of)] for of in (found.images, found.panels))
        shown = gr.update(value=panels, visible=bool(panels))
        return "\n".join([said, *found.notes]), images, shown, [str(found.all), *images]

    def worker() -> None:
        _replace(seen, _guarded(work))

    # a thread, so that what is on the way can be yielded; it has this context, in which gradio knows the request
    thread = threading.Thread(target=contextvars.copy_context().run, args=(worker,), daemon=True)
    thread.start()
    try:
        while isinstance((found := seen.get())[0], float):
            time, pictures = found
            said = f"On the way from noise (1) to images (0): {time:.2f}."
            yield said, gr.skip(), gr.skip(), gr.skip(), gr.update(value=grid(pictures), visible=True)
        said, answer = found
        yield *(answer or (said, None, gr.update(value=None, visible=False), None)), gr.update(visible=False)
    finally:
        thread.join()
        shutil.rmtree(own, ignore_errors=True)


def _replace(seen: queue.Queue[Any], item: tuple[Any, ...]) -> None:
    """Puts an item in the place of one that was not read: a page need not see each step."""
    with contextlib.suppress(queue.Empty):
        seen.get_nowait()
    seen.put(item)


def _plane_tab(studio: Studio) -> None:
    gr.Markdown(
        "A plane through the model's latent space. Draw its map, then click a place on the map, or move the sliders."
    )
    controls = studio.controls
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            names = {"seed": gr.Textbox(value="0", label="Seed: which plane", elem_id="plane_seed")}
            if controls.labels:
                names["labels"] = gr.Dropdown(list(controls.labels), value=controls.labels[0], label="Class",
                                              elem_id="plane_label")  # fmt: skip
            button = gr.Button("Draw the map", variant="primary", elem_id="plane")
            ways = [_as_sent(gr.Slider(0, 1, value=0.5, step=0.01, label=name, elem_id=f"plane_{name[0]}"),
                             lambda payload: payload)
                    for name in ("x: to the right", "y: upwards")]  # fmt: skip
        look = {"height": 320, "format": "png", "elem_classes": ["pixels"], "interactive": False}
        map_ = gr.Image(label="Map", elem_id="plane_map", buttons=["download"], **look)
        place = gr.Image(label="At this place", elem_id="plane_place", buttons=["download"], **look)
    told = gr.Textbox(label="What happened", interactive=False, lines=1, elem_id="plane_told")
    asked = list(names.values())

    def request(values: tuple[Any, ...]) -> Any:
        given = dict(zip(names, values, strict=True))
        return read_request(controls, given | {"labels": [given["labels"]] if given.get("labels") else ()})

    def draw_map(*values: Any) -> tuple[str, Any]:
        steps = [(i + 0.5) / MAP for i in range(MAP)]
        places = [(x, y) for y in reversed(steps) for x in steps]
        said, images = _guarded(lambda: studio.plane(request(values), places))
        return said or f"The map of seed {values[0]}.", None if images is None else grid(images, MAP)

    def draw_place(x: Any, y: Any, *values: Any) -> tuple[str, Any]:
        said, images = _guarded(lambda: studio.plane(request(values), [read_place(x, y)]))
        return said or f"x = {float(x):.2f}, y = {float(y):.2f}.", None if images is None else images[0]

    def clicked(drawn: Any, event: gr.SelectData) -> tuple[float, float]:
        column, row = event.index  # pixels of the map
        return round(column / drawn.shape[1], 2), round(1 - row / drawn.shape[0], 2)

    button.click(draw_map, asked, [told, map_], api_name="plane", concurrency_id="model")
    map_.select(clicked, [map_], ways).then(draw_place, [*ways, *asked], [told, place], concurrency_id="model")
    for way in ways:
        way.release(draw_place, [*ways, *asked], [told, place], concurrency_id="model")


def _quiz_tab(studio: Studio, folder: pathlib.Path) -> None:
    gr.Markdown(f"Up to {PAIRS} pairs of an image of this model and a real one that it has not learned from.")
    seed = gr.Textbox(value="0", label="Seed", elem_id="quiz_seed")
    button = gr.Button("Make a quiz", elem_id="quiz")
    told = gr.Textbox(label="What happened", interactive=False, elem_id="quiz_told")
    frame = gr.HTML(elem_id="quiz_frame")

    def ask(value: Any) -> tuple[str, str]:
        own = pathlib.Path(tempfile.mkdtemp(dir=folder))
        try:
            said, text = _guarded(lambda: studio.quiz(read_request(studio.controls, {"seed": value}).seed, PAIRS, own))
        finally:
            shutil.rmtree(own, ignore_errors=True)
        if text is None:
            return said, ""
        return "Choose the real one.", FRAME.format(html.escape(text))

    button.click(ask, [seed], [told, frame], api_name="quiz", concurrency_id="model")


def _guarded(work: Callable[[], Any]) -> tuple[str, Any]:
    """Returns `("", result)`, or a sentence on what is wrong and None."""
    try:
        return "", work()
    except UserError as error:
        return printable(str(error)), None
    except Exception as error:
        said = disk_trouble(error) or beyond_machine(error)
        if said is None:
            log.exception("a request of the demo failed")
        return printable(said or FAULT), None


def _components(controls: Controls) -> dict[str, Any]:
    """Returns the components of the controls, by the names that `read_request` knows."""
    found: dict[str, Any] = {}
    if controls.prompt:
        empty = "" if controls.prompt == "needed" else "; empty: held-out texts"
        found["prompt"] = gr.Textbox(label=f"Prompt (several: one a line{empty})", lines=2, elem_id="prompt")
    if controls.negative_prompt:
        found["negative_prompt"] = gr.Textbox(label="Negative prompt", elem_id="negative_prompt")
    if controls.labels:
        found["labels"] = gr.Dropdown(
            list(controls.labels), multiselect=True, label="Classes (none: all of them)", elem_id="labels"
        )
    for entry, picture in controls.pictures.items():
        if picture.several:
            found[entry] = gr.Files(label=picture.label, elem_id=f"picture_{entry}")
        else:
            image = gr.Image(
                label=picture.label, type="filepath", sources=["upload", "clipboard"], height=180, buttons=[],
                elem_id=f"picture_{entry}", elem_classes=["pixels"],
            )  # fmt: skip
            found[entry] = _as_sent(image, _path)
    if controls.strength:
        label = "Strength: the share of the picture that may change (empty: 0.6, and 1 with a mask)"
        found["strength"] = gr.Textbox(label=label, elem_id="strength")
    if controls.degrade:
        found["degrade"] = gr.Checkbox(
            label="The picture is a clean one: make of it what the model reads", elem_id="degrade"
        )
    found["seed"] = gr.Textbox(value="0", label="Seed", elem_id="seed")
    slider = gr.Slider(1, MOST_IMAGES, value=4, step=1, label="Images", elem_id="num")
    found["num"] = _as_sent(slider, lambda payload: payload)
    for key, choice in controls.choices.items():
        found[key] = gr.Dropdown(
            list(choice.words), value=choice.value, label=choice.label, elem_id=key.replace(".", "_")
        )
    for key, number in controls.numbers.items():
        value = "" if number.value is None else f"{number.value:g}"
        found[key] = gr.Textbox(value=value, label=number.label, elem_id=key.replace(".", "_"))
    if controls.watch:
        label = "Watch: show the first images on their way from noise"
        found["watch"] = gr.Checkbox(label=label, elem_id="with_watch")
    if controls.panels:
        label = "The model's panels, too: such as the way from noise"
        found["panels"] = gr.Checkbox(label=label, elem_id="with_panels")
    return found


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Starts to serve a page in threads, and returns its address.

    Raises:
      UserError: the port is not free.
    """
    css = ".pixels img { image-rendering: pixelated; }"
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
            show_error=False, max_file_size=MOST_BYTES, footer_links=[], run_history=False, ssr_mode=False, css=css,
            enable_monitoring=False, mcp_server=False, pwa=False, theme=gr.themes.Default(font=FONTS, font_mono=FONTS),
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--port={port} is not free on {host}: give another --port.") from error
    return address
