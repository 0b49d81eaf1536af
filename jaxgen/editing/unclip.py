"""`python -m jaxgen.editing.unclip --workdir=DECODER --clip=CLIP --image=a.png --out=FOLDER`: unCLIP's three edits.

Draws variations of pictures; with two pictures or more, what lies between each and the next one; and with the texts
--before and --after, a picture that changes from what one says to what the other says. The decoder is the run of a
diffusion method that reads the entry `embedding`, and CLIP the run whose embeddings it learned with.
`panel_variations.png` has a line for each picture, which comes first. `interpolation.png` and `text_difference.png`
have a line for each frame, and are animations too (`.gif`). `unclip.json` has the numbers.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float

from jaxgen.arrays import Array, Params, to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.editing.embeddings import ENTRY, Decoder, changed, interpolated, nulls
from jaxgen.entry_point import Parser, a_path, add_trust, count, entry_point, seed
from jaxgen.errors import UserError
from jaxgen.files import check_writable, read_json, user_path, write_bytes, write_json
from jaxgen.files.pictures import picture_files
from jaxgen.host import use_compilation_cache
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.runs.state import seed_key
from jaxgen.sampling.inputs import read_inputs
from jaxgen.sampling.restore import TrainedModel, restore_run
from jaxgen.sampling.slots import BEGUN, begun_slots
from jaxgen.sizes import PER_STEP, check_fits

FRAMES = 9
CAPTIONS = {
    "variations": "A picture, and images that the decoder draws of its CLIP embedding.",
    "interpolation": "Between two pictures: their embeddings and the noise that they are decoded from, on arcs.",
    "text_difference": "A picture whose embedding is turned along the difference of two texts.",
}


@runtime_checkable
class Embeds(Protocol):
    """Holds what is read of CLIP's method: unit embeddings of images in [-1, 1] and of tokens."""

    image_shape: tuple[int, int, int]

    def embed_image(self, params: Params, image: jax.Array) -> jax.Array: ...

    def embed_text(self, params: Params, tokens: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Request:
    """Holds what is asked for.

    Attributes:
      num: variations of each picture.
      seed: of all noise.
      steps: of DDIM in interpolations and text differences.
      before, after: what the pictures show and what they should show; both "" for no text difference.
      most: the share of the way that a text difference goes.
      prompt: a text that the decoder is told too; "" tells it none.

    Raises:
      UserError: a number is out of its range, or one of the two texts is missing.
    """

    num: int = 7
    seed: int = 0
    steps: int = 50
    before: str = ""
    after: str = ""
    most: float = 0.5
    prompt: str = ""

    def __post_init__(self) -> None:
        if bool(self.before) != bool(self.after):
            raise UserError("--before says what a picture shows, and --after what it should show: give both or none.")
        if not 0 < self.most <= 1:
            raise UserError(f"--most={self.most:g}: give the share of the way that a text difference goes, in (0, 1].")
        check_fits(self.steps * PER_STEP, f"--steps={self.steps}", "lower it")


def edit(
    workdir: epath.PathLike,
    clip: epath.PathLike,
    images: Sequence[epath.PathLike],
    out: epath.PathLike,
    request: Request | None = None,
    trust: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Draws the pictures, and returns the numbers of `unclip.json`, each a mean over pictures.

    `variation_cosine` is that of the embeddings of variations and of their picture, `interpolation_cosine` that with
    the second of two pictures, and `text_difference_cosine` that with the text after; the last two are by frame.
    `unclip.npz` has all images, uint8: `variations` [N, num, H, W, C], `interpolation` and `text_difference`
    [F, N, H, W, C].

    Args:
      workdir: the decoder's run.
      clip: the run of CLIP whose embeddings it learned with.
      images: pictures, and folders of them.
      out: the folder for the pictures.
      request: what is drawn.
      trust: packages beside jaxgen whose classes the runs' configs may name.

    Raises:
      UserError: a run is of another kind, the two do not fit, or a picture or a text cannot be used.
    """
    request = request or Request()
    check_writable(out, "--out")
    files = [file for path in images for file in picture_files(user_path(path, "--image"), "--image")]
    trained, embedder = (restore_run(run, trust, flag) for run, flag in ((workdir, "--workdir"), (clip, "--clip")))
    method, embeds = _pair(trained, embedder)
    if request.prompt:
        trained.generator.use_prompts([request.prompt])
    told: dict[str, Array | np.ndarray] = {**nulls(method)}
    told |= {name: rows[:1] for name, rows in trained.generator.given.items()}
    missing = [name for name in method.conditions if name not in (ENTRY, *told)]
    if missing:
        raise UserError(
            f"The decoder also reads {', '.join(missing)}, for which it has no null: train it with a dropout of that "
            f"part{', or give --prompt' if 'tokens' in missing else ''}."
        )
    model = jax.device_put(trained.model, jax.devices()[0])
    decoder = Decoder(method, model, told, request.steps)
    eye = Eye(embeds, jax.device_put(embedder.model.params, jax.devices()[0]))
    texts = None
    if request.after:
        texts = eye.texts(embedder.generator.tokens_of((request.before, request.after), "--before and --after"))
    seen = read_pictures(files, method.image_shape)
    same = method.image_shape == embeds.image_shape
    embedding = eye.images(seen if same else read_pictures(files, embeds.image_shape))
    pictures, numbers = _drawn(decoder, eye, seen, embedding, texts, request)
    about = {"step": trained.step, "clip_step": embedder.step, "num": len(files), "seed": request.seed}
    _write(epath.Path(out), seen, pictures)
    write_json(epath.Path(out) / "unclip.json", {"_meta": about, **numbers})
    return numbers


@dataclasses.dataclass(frozen=True)
class Eye:
    """Embeds images and texts by a trained CLIP, as unit vectors."""

    method: Embeds
    params: Params

    def images(self, images: Float[Array, "N H W C"]) -> Float[Array, "N D"]:
        """Embeds images in [-1, 1], resized to what CLIP sees."""
        shape = (len(images), *self.method.image_shape)
        return self.method.embed_image(self.params, jax.image.resize(images, shape, "linear"))

    def texts(self, tokens: np.ndarray) -> Float[Array, "N D"]:
        """Embeds texts."""
        return self.method.embed_text(self.params, jnp.asarray(tokens))


def read_pictures(files: Sequence[epath.Path], shape: tuple[int, int, int]) -> Float[Array, "N H W C"]:
    """Returns pictures in [-1, 1], cropped in the centre and resized to this shape. Raises a UserError for others."""
    rows = read_inputs({"image": files}, {"image": begun_slots(shape)["image"]}, len(files)).rows[BEGUN]
    return jnp.asarray(to_float({"image": rows})["image"])


def _pair(trained: TrainedModel, embedder: TrainedModel) -> tuple[DDPM, Embeds]:
    """Returns the decoder's and CLIP's methods; raises a UserError for runs of other kinds, or that do not fit."""
    method, embeds = trained.generator.method, embedder.generator.method
    if not isinstance(method, DDPM) or method.gives != "image" or ENTRY not in method.conditions:
        raise UserError(
            f"--workdir names a run of {type(method).__name__}, which is no diffusion model of images that reads the "
            f"entry {ENTRY!r}: give that of a decoder, such as configs/unclip_decoder_shapes.py."
        )
    if not isinstance(embeds, Embeds):
        raise UserError(
            f"--clip names a run of {type(embeds).__name__}, which embeds no images and texts: give that of CLIP."
        )
    wanted = tuple(trained.example.get(ENTRY, ((), ""))[0])
    blank = jax.ShapeDtypeStruct((1, *embeds.image_shape), jnp.float32)
    width = jax.eval_shape(embeds.embed_image, embedder.model.params, blank).shape[1:]
    if wanted and wanted != width:
        raise UserError(
            f"The decoder of --workdir learned with embeddings of {wanted[0]} numbers, and the CLIP of --clip gives "
            f"{width[0]}: give the CLIP that wrote the decoder's data."
        )
    return method, embeds


def _drawn(
    decoder: Decoder, eye: Eye, images: Float[Array, "N H W C"], embedding: Float[Array, "N D"],
    texts: Float[Array, "2 D"] | None, request: Request,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:  # fmt: skip
    """Returns the images `{name: [...]}` in [-1, 1] that `edit` explains, and the numbers."""
    count, num = len(images), request.num
    root = seed_key(jnp.uint32(request.seed), "unclip")
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count * num))
    found = {"variations": jax.jit(decoder.variations)(jnp.repeat(embedding, num, axis=0), keys)}
    similar = (eye.images(found["variations"]) * jnp.repeat(embedding, num, axis=0)).sum(axis=1)
    numbers = {"variation_cosine": {"mean": float(similar.mean())}}
    found["variations"] = found["variations"].reshape(count, num, *images.shape[1:])

    def by_frame(frames: Array, wanted: Array, shares: np.ndarray) -> dict[str, float]:
        cosines = [float((eye.images(frame) * wanted).sum(axis=-1).mean()) for frame in frames]
        return {f"{share:.3g}": cosine for share, cosine in zip(shares, cosines, strict=True)}

    if count > 1:
        ends = (images[:-1], images[1:]), (embedding[:-1], embedding[1:])
        walk = jax.jit(lambda images, embeddings, keys: interpolated(decoder, images, embeddings, keys, FRAMES))
        found["interpolation"] = walk(*ends, keys[: count - 1])
        shares = np.linspace(0, 1, FRAMES)
        numbers["interpolation_cosine"] = by_frame(found["interpolation"], embedding[1:], shares)
    if texts is not None:
        pair = jnp.broadcast_to(texts[0], embedding.shape), jnp.broadcast_to(texts[1], embedding.shape)
        turn = jax.jit(lambda images, z, pair, keys: changed(decoder, images, z, pair, keys, request.most, FRAMES))
        found["text_difference"] = turn(images, embedding, pair, keys[:count])
        shares = np.linspace(0, request.most, FRAMES)
        numbers["text_difference_cosine"] = by_frame(found["text_difference"], pair[1], shares)
    return {name: np.asarray(values) for name, values in found.items()}, numbers


def _write(out: epath.Path, images: Float[Array, "N H W C"], pictures: dict[str, np.ndarray]) -> None:
    """Writes the pictures, their captions, and all images in one archive."""
    variations = np.concatenate([np.asarray(images)[:, None], pictures["variations"]], axis=1)
    rows = variations.reshape(-1, *images.shape[1:])
    save_png(out / "panel_variations.png", grid(rows, columns=variations.shape[1]))
    for name in ("interpolation", "text_difference"):
        if name in pictures:
            frames = pictures[name]
            save_png(out / f"{name}.png", grid(frames.reshape(-1, *frames.shape[2:]), columns=frames.shape[1]))
            save_gif(out / f"{name}.gif", animation(frames), ms=300)
    buffer = io.BytesIO()
    levels = {name: np.asarray(to_uint8(jnp.asarray(x))) for name, x in pictures.items()}
    np.savez_compressed(buffer, **levels)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
    write_bytes(out / "unclip.npz", buffer.getvalue())
    known = read_json(out / "captions.json") if (out / "captions.json").exists() else {}
    write_json(out / "captions.json", {**known, **{name: CAPTIONS[name] for name in pictures}})


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the pictures, and prints the numbers and the folder."""
    parser = Parser(prog="python -m jaxgen.editing.unclip", description=__doc__.split("\n\n")[1])
    parser.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a decoder's run")
    parser.add_argument("--clip", required=True, type=a_path("--clip"), help="the run of CLIP that it learned with")
    parser.add_argument("--out", required=True, type=a_path("--out"), help="the folder for the pictures")
    parser.add_argument(
        "--image", action="append", required=True, metavar="PATH",
        help="a picture, or a folder of them; may be given several times",
    )  # fmt: skip
    parser.add_argument("--num", type=count("num"), default=7, help="how many variations of each picture")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--steps", type=count("steps"), default=50, help="steps of DDIM in the other two edits")
    parser.add_argument("--before", default="", help="a text that says what the pictures show")
    parser.add_argument("--after", default="", help="a text that says what they should show")
    parser.add_argument("--most", type=float, default=0.5, help="the share of the way that the texts' difference goes")
    parser.add_argument("--prompt", default="", help="a text that the decoder is told beside the embedding")
    add_trust(parser)
    given = parser.parse_args(arguments)
    request = Request(given.num, given.seed, given.steps, given.before, given.after, given.most, given.prompt)
    use_compilation_cache()
    numbers = edit(given.workdir, given.clip, given.image, given.out, request, given.trust)
    for name, values in numbers.items():
        print(f"{name}:", "  ".join(f"{at}: {value:.4g}" for at, value in values.items()))
    print(epath.Path(given.out))


if __name__ == "__main__":
    sys.exit(main())
