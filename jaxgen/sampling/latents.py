"""Encodes data once, so that a second stage trains without the encoder of the first, and unCLIP without CLIP's tower.

    python -m jaxgen.sampling.latents runs/kl_autoencoder_digits digits_latents.npz --splits=train,test
    python main.py --config=configs/latent_diffusion_digits.py --workdir=W --config.data.source=npz:digits_latents.npz

The file holds, for each split, `<split>_images` (uint8), `<split>_moments` (float32 `[N, h, w, 2 D]`: means, then log
variances) and every other array that the data have, such as labels, tokens and captions, so that
`captions:npz:OUT.npz` is data too (`jaxgen.data.sources.captions`). `OUT.npz.tokenizer.json` is the tokenizer that made
the data's tokens, if they are of whole words, so that a model that learns from the file can be given texts. Each step
draws new latents from their moments, as it does without the file. Random flips are not: the moments of a mirrored image
are not the mirrored moments, so write both with `--flip` and leave `config.data.flip` off.

For a run of a `vq_autoencoder` the file holds `<split>_codes`, int32 `[N, h, w]`, in place of the moments, and for a
run of CLIP `<split>_embedding`, float32 `[N, D]` of length 1.

A run of CLIP also finds captions for images that have none. `--captions=captions.txt` is a file of sentences, one a
line, and every image is given the one whose embedding is nearest to its own, as a pseudo-caption (Wei et al. 2023,
"TAPS3D"): `<split>_captions` and `<split>_tokens`, in place of those that the data have. A text-to-image
or text-to-3D model then trains on the file:

    python -m jaxgen.sampling.latents runs/clip_solids told.npz --splits=train,test --captions=captions.txt
    python main.py --config=configs/triplane_solids.py --workdir=W --config.data.source=npz:told.npz
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from jaxgen.arrays import Params, Tree
from jaxgen.data import Source, batches
from jaxgen.data.sources.npz import SYNONYMS, TOKENIZER
from jaxgen.data.transforms import mirrored, to_float
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.entry_point import Parser, a_path, add_trust, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_writable_file, read_lines, user_path, whole_file
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.methods.base import Method, Model
from jaxgen.methods.contrastive.retrieval import nearest
from jaxgen.parallel.mesh import await_cpu, make_mesh, over_data, place, replicated

if TYPE_CHECKING:
    from jaxgen.sampling.restore import TrainedModel

Encode = Callable[[Tree, jax.Array], jax.Array]
TEXTS = 256  # captions of one program
IN_FILES = {entry: name for name, entry in SYNONYMS.items()}


@runtime_checkable
class EmbedsImages(Protocol):
    """Holds what is read of a method whose embeddings of images are written, such as CLIP."""

    def embed_image(self, params: Params, image: jax.Array) -> jax.Array: ...

    def embed_text(self, params: Params, tokens: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Captions:
    """Holds sentences that images may be told by.

    Attributes:
      texts: the sentences.
      tokens: int32 [N, L], what the tokenizer of the run makes of them.
      embeddings: float32 [N, D], their unit embeddings.
    """

    texts: Sequence[str]
    tokens: Int[np.ndarray, "N L"]
    embeddings: Float[np.ndarray, "N D"]

    @classmethod
    def read(cls, file: epath.PathLike, trained: TrainedModel) -> Captions:
        """Returns the sentences of a file, one a line, by a trained CLIP; empty lines are left out.

        Raises:
          UserError: the file cannot be read or holds no text, the model embeds no texts, or it does not know a word.
        """
        flag, method = "--captions", trained.generator.method
        if not isinstance(method, EmbedsImages):
            raise UserError(
                f"{flag} compares images with texts, and {type(method).__name__} does not: give a run of clip."
            )
        texts = list(dict.fromkeys(read_lines(user_path(os.fspath(file), flag), flag)))  # each once
        tokens, program = trained.generator.tokens_of(texts, flag), jax.jit(method.embed_text)
        parts = [program(trained.model.params, tokens[i : i + TEXTS]) for i in range(0, len(tokens), TEXTS)]
        return cls(texts, tokens, np.concatenate([np.asarray(part) for part in parts]))

    def told(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns examples with `embedding` [N, D] and the nearest sentences as their `caption` and `tokens`."""
        best = nearest(arrays["embedding"], self.embeddings)
        return {**arrays, "caption": np.array(self.texts)[best], "tokens": self.tokens[best]}


def encoded(
    source: Source, encode: Encode, params: Tree, batch_size: int, flip: bool = False, entry: str = "moments"
) -> dict[str, np.ndarray]:
    """Returns every example of a source, stacked, with what its image is encoded as, by default its `moments`.

    Args:
      source: the examples.
      encode: `(params, images) -> moments`, of float32 images `[B, H, W, C]` in [-1, 1] and moments `[B, h, w, 2 D]`,
        or other arrays `[B, ...]`.
      params: the encoder's parameters.
      batch_size: the number of images of one program.
      flip: whether every example is added a second time, with its images and masks mirrored left to right.
      entry: the name of what is added; it takes the place of an entry of this name that the examples have.

    Raises:
      UserError: for moments that are not finite.
    """
    mesh = make_mesh(0, batch_size)
    everywhere, split = replicated(mesh), over_data(mesh)
    program = jax.jit(lambda params, batch: encode(params, to_float(batch)["image"]), in_shardings=(everywhere, split))
    params = jax.device_put(params, everywhere)
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches(source, batch_size):
        arrays = {key: np.asarray(value) for key, value in batch.items()}
        for example in (arrays, mirrored(arrays)) if flip else (arrays,):
            image = example["image"]
            short = batch_size - len(image)  # one shape for all, so that one program does
            filled = np.concatenate([image, np.repeat(image[-1:], short, axis=0)])
            moments = await_cpu(mesh, program(params, place({"image": filled}, mesh)))
            for key, value in {**example, entry: np.asarray(moments)[: len(image)]}.items():
                found.setdefault(key, []).append(value)
    arrays = {key: np.concatenate(parts) for key, parts in found.items()}
    finite = np.isfinite(arrays[entry]).reshape(len(arrays[entry]), -1).all(axis=1)
    if not finite.all():
        what, of = ("latents", "first stage") if entry == "moments" else (f"an {entry}", "model")
        raise UserError(
            f"{(~finite).sum()} of {len(finite)} images of {source.name!r} have {what} that "
            f"{'are' if entry == 'moments' else 'is'} not finite (NaN or infinity), so nothing is written; use another "
            f"{of}."
        )
    return arrays


def write(
    workdir: epath.PathLike,
    out: epath.PathLike,
    splits: Sequence[str],
    flip: bool = False,
    trust: Sequence[str] = (),
    captions: epath.PathLike = "",
) -> epath.Path:
    """Encodes splits of the data of a first stage, or of CLIP, by its averaged weights into one npz file.

    Args:
      workdir: the run.
      out: the file to write.
      splits: the splits of the run's data.
      flip: whether the training split is written twice, plain and mirrored.
      trust: packages beside jaxgen whose classes the run's config may name.
      captions: a file of sentences, one a line, of which each image is given the nearest; "" leaves captions as they
        are.

    Returns:
      The path of the file.

    Raises:
      UserError: where there is no such run, it encodes nothing, its data cannot be opened, or `captions` cannot be
        used.
    """
    from jaxgen.runs.workdir import config_of_run
    from jaxgen.sampling.restore import restore

    check_writable_file(out, "OUT.npz")
    config = config_of_run(workdir, trust)
    trained = restore(config, workdir)
    entry, encode, params = _encoder(trained.generator.method, trained.model, workdir)
    texts = Captions.read(captions, trained) if captions else None
    arrays: dict[str, np.ndarray] = {}
    tokenizer = None
    for name in splits:
        source = trained.generator.source(name)
        size = trained.generator.batch_size
        twice = flip and name == config.data.split
        found = encoded(source, encode, params, size, twice, entry)
        for key, values in (texts.told(found) if texts else found).items():
            arrays[f"{name}_{IN_FILES.get(key, key)}"] = values
        tokenizer = trained.generator.tokenizer if texts else getattr(source, "tokenizer", None)
    path = epath.Path(out)
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
    if isinstance(tokenizer, WordTokenizer):
        (path.parent / f"{path.name}{TOKENIZER}").write_text(tokenizer.to_json())
    return path


def _encoder(method: Method, model: Model, workdir: epath.PathLike) -> tuple[str, Encode, Tree]:
    """Returns the entry that a method's encoder makes of images, the encoder, and its parameters.

    Raises:
      UserError: the method encodes nothing.
    """
    if isinstance(method, EmbedsImages):
        return "embedding", method.embed_image, model.params
    if not method.encodes:
        raise UserError(
            f"{workdir} is a run of {type(method).__name__}, which encodes nothing for a second stage: give that of a "
            "kl_autoencoder, of a vq_autoencoder, or of clip."
        )
    return method.encodes, method.encode_images, model


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file and prints its path."""
    parser = Parser(prog="python -m jaxgen.sampling.latents", description="Encodes data once.")
    parser.add_argument("workdir", metavar="RUN", type=a_path("RUN"), help="the run of a first stage, or of CLIP")
    parser.add_argument("out", metavar="OUT.npz", type=a_path("OUT.npz"))
    parser.add_argument("--splits", default="train,test", help="splits of the run's data, with commas")
    parser.add_argument("--flip", action="store_true", help="the training split twice, plain and mirrored")
    parser.add_argument("--captions", default="", help="sentences, one a line: each image gets the nearest, by CLIP")
    add_trust(parser)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    use_compilation_cache()
    splits = [name for name in given.splits.split(",") if name]
    print(write(given.workdir, given.out, splits, given.flip, given.trust, given.captions))


if __name__ == "__main__":
    sys.exit(main())
