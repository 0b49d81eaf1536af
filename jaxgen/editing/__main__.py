"""`python -m jaxgen.editing --workdir=RUN --out=FOLDER`: draws what this room does with a trained diffusion model.

Inversion and interpolation become animations, `<name>.gif`, with their frames as rows of `<name>.png`; branching,
SDEdit and a masked edit become `panel_<name>.png`. `captions.json` has their captions and `editing.json` the numbers.
With the run's own `samples` folder as --out, `python -m jaxgen.report RUN` shows each of them once. A model of latents
is edited in latents: images are encoded, and all that is drawn is decoded. The images are held-out ones, or your own,
--image.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Params
from jaxgen.data.corruptions import corrupt
from jaxgen.data.transforms import to_float
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.schedules import Schedule
from jaxgen.editing.inversion import reconstruction_error
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.panels import CAPTIONS, coarse, draw_branches, editing_panels
from jaxgen.entry_point import Parser, a_path, add_trust, count, entry_point, seed
from jaxgen.errors import UserError
from jaxgen.files import check_writable, read_json, user_path, write_json
from jaxgen.files.pictures import picture_files
from jaxgen.host import use_compilation_cache
from jaxgen.methods.base import Model, check_limits
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.runs.state import seed_key
from jaxgen.sampling.finite import NotFinite, panel_told, told
from jaxgen.sampling.inputs import read_inputs
from jaxgen.sampling.restore import TrainedModel, restore_run
from jaxgen.sampling.slots import BEGUN, begun_slots
from jaxgen.sizes import PER_STEP, check_fits

log = logging.getLogger("jaxgen")

MOVING = ("inversion", "interpolation")


@runtime_checkable
class DiffusionMethod(Protocol):
    """Holds what editing reads of a method; a method that lacks any of it is no diffusion model."""

    @property
    def conditions(self) -> tuple[str, ...]: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def sampler(self) -> Sampler: ...

    def denoiser(self, params: Params) -> Denoiser: ...

    def condition(self, params: Params, batch: Batch, keys: Key[Array, "B"] | None = None) -> Batch: ...

    def diffused(self, model: Model, batch: Batch) -> jax.Array: ...

    def decode(self, model: Model, z: jax.Array) -> jax.Array: ...


def edit(
    workdir: epath.PathLike,
    out: epath.PathLike,
    num: int = 8,
    seed: int = 0,
    steps: int = 50,
    eta: float = 1.0,
    inversion_steps: Sequence[int] = (10, 20, 50, 100),
    branch_times: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.2),
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75),
    prompts: Sequence[str] = (),
    trust: Sequence[str] = (),
    images: Sequence[epath.PathLike] = (),
) -> dict[str, dict[str, float]]:
    """Draws the pictures, measures, and returns the numbers of `editing.json`.

    Args:
      workdir: the folder of a run of a diffusion method.
      out: the folder for the pictures.
      num: the number of held-out images.
      seed: the seed of all noise.
      steps: the number of steps of all samplers.
      eta: eta of the DDIM that branches and edits: 1 is ancestral sampling, at 0 nothing branches.
      inversion_steps: numbers of steps at which the error of inversion is measured, plain and with three refinements.
      branch_times: the times at which trajectories part.
      strengths: the strengths of SDEdit.
      prompts: texts that a model of captions follows, image i the text i % N; by default the images' own captions.
      trust: packages other than jaxgen whose classes the run's config may name.
      images: files of pictures, and folders of them, to work on in place of held-out images; at most the first `num`.
        They are fitted to the model's size, which is told.

    Raises:
      NotFinite: nothing that the model draws is finite.
      UserError: there is no such run, its method has no denoiser, it reads no text, a picture cannot be read, or
        `out` cannot be written.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"--eta={eta}: DDIM's eta lies in [0, 1].")
    check_fits(steps * PER_STEP, f"--steps={steps}", "lower it")
    check_writable(out, "--out")
    files = [file for path in images for file in picture_files(user_path(path, "--image"), "--image")]
    trained, method = _diffusion_model(workdir, trust, prompts)
    batch, keys = _examples(trained, num, seed, files)
    levels = method.schedule.steps
    inversion_steps = [count for count in inversion_steps if not levels or count <= levels] or [levels]
    settings = Settings(steps, eta, tuple(inversion_steps), branch_times, strengths)
    pictures, found = _drawn(method, trained.model, batch, keys, settings)
    plain, refined, diversities = (np.asarray(v, np.float64) for v in found)
    if not np.isfinite(np.concatenate(found)).any():
        raise NotFinite(told(np.zeros(len(keys), bool), trained.generator.method, trained.model))
    _write_pictures(epath.Path(out), pictures)
    numbers = {
        "_meta": {"step": trained.step, "images": trained.images, "num": len(keys), "seed": seed, "eta": eta},
        "inversion_error": dict(zip(map(str, inversion_steps), plain.tolist(), strict=True)),
        "inversion_error_refined": dict(zip(map(str, inversion_steps), refined.tolist(), strict=True)),
        "branching_diversity": dict(zip(map(str, branch_times), diversities.tolist(), strict=True)),
    }
    write_json(epath.Path(out) / "editing.json", numbers)
    return numbers


class Settings(NamedTuple):
    """Holds the numbers of `edit`, which explains them."""

    steps: int
    eta: float
    inversion_steps: tuple[int, ...]
    branch_times: tuple[float, ...]
    strengths: tuple[float, ...]


def _drawn(
    method: DiffusionMethod, model: Model, batch: Batch, keys: Key[Array, "B"], settings: Settings
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Returns the pictures `{name: [frames, N, H, W, C]}`, and the numbers of inversion, plain and refined, and of
    branching; the numbers are those of what is diffused, for latents too."""
    model = jax.device_put(model, jax.devices()[0])
    sampler = DDIM(settings.steps, clip=method.sampler.clip, eta=settings.eta)

    # a program of its own: traced once for the many samplers below
    network = jax.jit(lambda params, condition, x, t: method.denoiser(params)(x, t, **condition))

    @jax.jit
    def draw(model: Model, batch: Batch, keys: jax.Array):
        condition = method.condition(model.params, batch, keys)
        images, guide = method.diffused(model, batch), method.diffused(model, {"image": coarse(batch["image"])})
        edited = DiffusionModel(functools.partial(network, model.params, condition), method.schedule, sampler)
        parted = draw_branches(edited, keys, images.shape[1:], settings.branch_times)
        pictures = editing_panels(
            edited, keys, images, settings.steps, strengths=settings.strengths, parted=parted, guide=guide
        )
        pictures = {k: jax.lax.map(functools.partial(method.decode, model), frames) for k, frames in pictures.items()}
        errors = [reconstruction_error(edited, images, settings.inversion_steps, refinements=n) for n in (0, 3)]
        return pictures, tuple(values.mean(axis=1) for values in (*errors, parted.diversity))

    return jax.device_get(draw(model, batch, keys))


def _examples(
    trained: TrainedModel, num: int, seed: int, files: Sequence[epath.Path]
) -> tuple[dict[str, jax.Array], Key[Array, "B"]]:
    """Returns a batch of at most `num` held-out examples, as methods see it, and a key for each.

    Where there are files, their pictures take the place of the examples' images, and the other entries stay.

    Raises:
      UserError: a file cannot be read, or the examples lack what the method reads.
    """
    generator = trained.generator
    source = generator.source(generator.config.data.eval_split)
    count = min(num, len(files)) if files else min(num, len(source))
    found = to_float(source.take([i % len(source) for i in range(count)]))
    if files:
        slot = begun_slots(found["image"].shape[1:])["image"]
        found["image"] = to_float({"image": read_inputs({"image": files}, {"image": slot}, num).rows[BEGUN]})["image"]
        found.pop("moments", None)  # they are those of the held-out images
        asked = [name for name in generator.method.conditions if name in found and name not in generator.given]
        if asked:
            log.info("the pictures are asked for with the %s of held-out data", " and the ".join(asked))
    found |= {name: rows[np.arange(count) % len(rows)] for name, rows in generator.given.items()}
    root = seed_key(jax.numpy.uint32(seed), "editing")
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jax.numpy.arange(count))
    if generator.corruptions:
        arrays = {name: values for name, values in found.items() if np.asarray(values).dtype.kind in "uifb"}
        found |= jax.jit(lambda batch, keys: corrupt(batch, keys, generator.corruptions))(arrays, keys)
    for name in generator.method.conditions:
        if name not in found:
            raise UserError(f"The model reads {name}, which the held-out data {source.name!r} do not have.")
    wanted = ("image", "moments", *generator.method.conditions)
    batch = {name: np.asarray(found[name]) for name in wanted if name in found}
    check_limits(generator.method, batch)
    return jax.tree.map(jax.numpy.asarray, batch), keys


def _diffusion_model(
    workdir: epath.PathLike, trust: Sequence[str], prompts: Sequence[str]
) -> tuple[TrainedModel, DiffusionMethod]:
    """Returns the newest checkpoint of a run of a diffusion method, which follows prompts if there are any; the method.

    Raises:
      UserError: there is no such run, its method has no denoiser, or it reads no prompts.
    """
    trained = restore_run(workdir, trust)
    method, config = trained.generator.method, trained.generator.config
    if not isinstance(method, DiffusionMethod) or method.gives != "image":
        raise UserError(f"The method {config.method.name!r} is no diffusion model of images; there is nothing to edit.")
    if prompts:
        trained.generator.use_prompts(prompts)
    return trained, method


def _write_pictures(out: epath.Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Writes frames `[F, N, H, W, C]` as rows of a PNG, as a GIF if they move, and captions; logs what is amiss."""
    for sentence in panel_told(pictures):
        log.warning(sentence)
    for name, frames in pictures.items():
        rows = grid(frames.reshape(-1, *frames.shape[2:]), columns=frames.shape[1])
        save_png(out / (f"{name}.png" if name in MOVING else f"panel_{name}.png"), rows)
        if name in MOVING:
            save_gif(out / f"{name}.gif", animation(frames), ms=300)
    captions = read_json(out / "captions.json") if (out / "captions.json").exists() else {}
    write_json(out / "captions.json", {**captions, **CAPTIONS})


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the pictures, and prints the numbers and the folder."""
    parser = Parser(prog="python -m jaxgen.editing", description=__doc__.split("\n\n")[1])
    parser.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a run")
    parser.add_argument("--out", required=True, type=a_path("--out"), help="the folder for the pictures")
    parser.add_argument("--num", type=count("num"), default=8, help="how many images to work on")
    parser.add_argument(
        "--image", action="append", default=[], metavar="PATH",
        help="a picture, or a folder of them, in place of held-out images; may be given several times",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--steps", type=count("steps"), default=50, help="the number of steps of all samplers")
    parser.add_argument(
        "--eta", type=float, default=1.0, help="eta of the DDIM that branches and edits; 1 is ancestral"
    )
    parser.add_argument(
        "--prompt", action="append", default=[], help="a text for a model of captions; may be given several times"
    )
    add_trust(parser)
    given = parser.parse_args(arguments)
    use_compilation_cache()
    numbers = edit(
        given.workdir,
        given.out,
        given.num,
        given.seed,
        given.steps,
        given.eta,
        prompts=given.prompt,
        trust=given.trust,
        images=given.image,
    )
    for name, values in numbers.items():
        if name != "_meta":
            print(f"{name}:", "  ".join(f"{at}: {value:.4g}" for at, value in values.items()))
    print(epath.Path(given.out))


if __name__ == "__main__":
    sys.exit(main())
