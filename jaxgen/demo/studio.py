"""Draws what requests ask for from one model, and writes the results as PNG files that carry their settings.

A program is compiled for each combination of settings and kept for the next request of the same kind; the number of
those that are kept is bounded. One request is drawn at a time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8
from ml_collections import ConfigDict

from jaxgen.config import check, to_json
from jaxgen.demo.controls import chosen_config, controls_of
from jaxgen.demo.request import Request
from jaxgen.demo.watch import pictured, watchable, watched
from jaxgen.editing.edited import Edited, given_pictures
from jaxgen.errors import UserError, printable
from jaxgen.evaluation.quiz import make_quiz
from jaxgen.files.carried import carrying
from jaxgen.methods.diffusion.stable_diffusion import StableDiffusion
from jaxgen.report.images import save_png, to_rgb
from jaxgen.runs.pretrained import pretrained_folder
from jaxgen.runs.setup import make_method
from jaxgen.sampling.degraded import degraded_pictures
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.outputs import write_panels
from jaxgen.sampling.prompts import TextRequest, text_conditions
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.samples import Samples

log = logging.getLogger("jaxgen")
KEPT = 8  # combinations of settings whose programs are kept
AT_ONCE = (1, 4, 16)  # images of a program; fewer images than the smallest that holds them would cost as much
# (the config, the request, its files by entry, the model) -> the texts that the PNG files carry
Texts = Callable[[ConfigDict, Request, Mapping[str, tuple[epath.Path, ...]], TrainedModel], Mapping[str, str]]
Tell = Callable[[int, str], None]  # (images that are done, what is being done)
Show = Callable[[float, np.ndarray], None]  # (a state's time from 1, noise, to 0; pictures uint8 [N, H, W, 3])


@dataclasses.dataclass(frozen=True)
class Results:
    """Holds the files of a request, which lie in its folder.

    Attributes:
      images: a file for each sample, or one for all where samples are videos.
      all: one picture of all samples.
      panels: those of the method, where they were asked for.
      notes: what was said while they were drawn, such as how a picture was cropped.
    """

    images: tuple[pathlib.Path, ...]
    all: pathlib.Path
    panels: tuple[pathlib.Path, ...]
    notes: tuple[str, ...]


class Studio:
    """Draws from a model, for any number of threads.

    Args:
      config: its config.
      base: the model; its generator is not changed.
      name: what the run is called.
      texts: makes what the PNG files carry.
      kept: how many combinations of settings keep their programs.

    Raises:
      UserError: there is nothing to see of what the model draws.
    """

    def __init__(self, config: ConfigDict, base: TrainedModel, name: str, texts: Texts, kept: int = KEPT):
        self.config, self.base, self.name = config, base, name
        self._texts, self._most = texts, kept
        self._programs: collections.OrderedDict[str, TrainedModel] = collections.OrderedDict()
        self._one = threading.Lock()
        self._show: Show = _unseen  # that of the request which is being drawn
        generator = base.generator
        if config.data.source != "none" and generator.method.conditions:
            with contextlib.suppress(UserError):  # it is said where a request needs the data
                generator.source(config.data.eval_split)
        self.controls = controls_of(config, base)

    def __len__(self) -> int:
        """Returns how many combinations of settings have programs that are kept."""
        return len(self._programs)

    def draw(
        self, request: Request, folder: pathlib.Path, tell: Tell = lambda done, what: None,
        show: Show | None = None,
    ) -> Results:  # fmt: skip
        """Draws and writes what a request asks for.

        Args:
          request: what is asked for.
          folder: a folder of this request alone.
          tell: is called before and after each batch of images.
          show: is called with states of the first images on their way, if the request is to be watched; in another
            thread than the caller's.

        Raises:
          UserError: the request cannot be drawn.
        """
        with self._one, self._showing(show), _noting() as notes:
            config = self._config(request)
            files = _files(request, folder)
            trained = self._given(config, request, files)
            texts = self._texts(config, request, files, trained)
            trained, new = self._compiled(config, request, trained)
            first = "compiling for these settings, and drawing" if new else "drawing"
            tell(0, first)
            method, model, labels = trained.generator, trained.model, request.labels
            samples = method.draw(model, request.seed, request.num, labels, done=lambda count: tell(count, "drawing"))
            with carrying(texts):
                images, whole = _write(folder, request, samples)
                panels: tuple[pathlib.Path, ...] = ()
                if request.panels:
                    tell(request.num, "drawing the panels")
                    write_panels(epath.Path(folder / "panels"), method, model, request.seed, labels)
                    panels = tuple(sorted((folder / "panels").iterdir()))
        return Results(images, whole, panels, tuple(dict.fromkeys(notes)))

    def quiz(self, seed: int, num: int, folder: pathlib.Path) -> str:
        """Returns the page of a quiz of up to `num` pairs of a sample and a held-out image.

        Raises:
          UserError: there are no held-out images, or the samples are not finite.
        """
        with self._one, _noting():
            place = folder / self.name
            place.mkdir(parents=True, exist_ok=True)
            config = self._config(Request(num=num))
            trained, _ = self._compiled(config, Request(), self._given(config, Request(), {}))
            return make_quiz(place, trained, seed, num).read_text()

    def plane(self, request: Request, places: Sequence[tuple[float, float]]) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the images at places of a plane of latents.

        Args:
          request: its seed chooses the plane, and its first label the class.
          places: x (to the right) and y (upwards), in [0, 1].

        Raises:
          UserError: the model has no such plane.
        """
        with self._one, _noting():
            label = request.labels[0] if request.labels else (0 if self.controls.labels else None)
            asked = Request(num=len(places), numbers=request.numbers, choices=request.choices)
            config = self._config(asked)
            trained, _ = self._compiled(config, asked, self._given(config, asked, {}))
            found = trained.generator.latent_plane(trained.model, request.seed, np.asarray(places, np.float32), label)
        return np.stack([to_rgb(image) for image in found])

    @contextlib.contextmanager
    def _showing(self, show: Show | None) -> Iterator[None]:
        """Lets the programs show their states to one request, and to none after it."""
        self._show = show or _unseen
        try:
            yield
        finally:
            jax.effects_barrier()
            self._show = _unseen

    def _see(self, time: np.ndarray, states: np.ndarray) -> None:
        self._show(float(time), to_rgb(pictured(states)))

    def _config(self, request: Request) -> ConfigDict:
        """Returns the config of a request, with as many images at a time as it needs."""
        config = chosen_config(self.config, request.numbers, request.choices)
        own = config.evaluate.batch_size
        if config.mesh.fsdp == config.mesh.tensor == 1:
            enough = next((count for count in AT_ONCE if count >= request.num), AT_ONCE[-1])
            config.evaluate.batch_size = min(own, enough)
        check(config)
        return config

    def _given(self, config: ConfigDict, request: Request, files: Mapping[str, tuple[epath.Path, ...]]) -> TrainedModel:
        """Returns the model with the method of a config and what a request gives it; nothing is compiled."""
        base = self.base.generator
        method = base.method if _draws_alike(config, self.config) else make_method(config)
        if request.watch and watchable(method):
            method = watched(method, self._see)
        elif request.watch:
            log.info("Of the sampler %s nothing can be shown while it runs.", config.sampler.get("name"))
        generator = Generator(method, config, sources=base.held_out.sources, given=base.given, words=base.words)
        if isinstance(method, StableDiffusion):
            asked = TextRequest(request.prompt, request.negative_prompt, num=request.num)
            found = text_conditions(method, pretrained_folder(config), asked, base.words)
            generator = generator.changed(method, found)
        else:
            if request.prompt:
                generator.use_prompts(request.prompt)
            if request.negative_prompt:
                generator.use_negative_prompt(request.negative_prompt)
        trained = dataclasses.replace(self.base, generator=generator)
        if request.degrade:
            return degraded_pictures(trained, files, request.num, request.seed)[0]
        return given_pictures(trained, files, request.strength, request.num)[0] if files else trained

    def _compiled(self, config: ConfigDict, request: Request, trained: TrainedModel) -> tuple[TrainedModel, bool]:
        """Returns a model that draws what a new one does with programs that are kept, and whether there were none."""
        made = trained.generator
        strength = made.method.strength if isinstance(made.method, Edited) else None
        key = repr((to_json(config), sorted(made.given), strength, request.watch))
        kept = self._programs.pop(key, None)
        if kept is not None:
            kept.generator.give(made.given)
        self._programs[key] = kept or trained
        while len(self._programs) > self._most:
            self._programs.popitem(last=False)
        return self._programs[key], kept is None


def _unseen(time: float, pictures: np.ndarray) -> None:
    """Shows a state to no one."""


def _draws_alike(one: ConfigDict, other: ConfigDict) -> bool:
    return one.sampler == other.sampler and one.guidance == other.guidance


def _files(request: Request, folder: pathlib.Path) -> dict[str, tuple[epath.Path, ...]]:
    """Returns the request's files by entry. Those of a set are copied into one folder, since a folder is a set."""
    found: dict[str, tuple[epath.Path, ...]] = {}
    for entry, paths in request.pictures.items():
        own = [pathlib.Path(path) for path in paths]
        if len(own) > 1:
            place = folder / "given" / entry
            place.mkdir(parents=True)
            own = [place / f"{i:02d}_{path.name}" for i, path in enumerate(own)]
            for source, target in zip(paths, own, strict=True):
                target.write_bytes(pathlib.Path(source).read_bytes())
        found[entry] = tuple(map(epath.Path, own))
    return found


def _write(folder: pathlib.Path, request: Request, samples: Samples) -> tuple[tuple[pathlib.Path, ...], pathlib.Path]:
    """Writes a file for each sample, and one picture of all as `--mode=sample` does."""
    whole = folder / f"seed_{request.seed}_all.png"
    picture = samples.picture()
    assert picture is not None  # or there would be no controls
    save_png(whole, picture)
    each = samples.output.pictures(samples.main, samples.finite)
    if each is None:  # videos
        return (folder / samples.output.write(epath.Path(folder), samples.main, samples.finite),), whole
    files = tuple(folder / f"seed_{request.seed}_image_{i}.png" for i in range(len(each)))
    for i, (file, image) in enumerate(zip(files, each, strict=True)):
        save_png(file, image, i)
    return files, whole


@contextlib.contextmanager
def _noting() -> Iterator[list[str]]:
    """Collects the lines that this thread logs."""
    lines: list[str] = []
    handler, here = logging.Handler(logging.INFO), threading.get_ident()

    def emit(record: logging.LogRecord) -> None:
        if record.thread == here:
            lines.append(printable(record.getMessage()))

    handler.emit = emit  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
