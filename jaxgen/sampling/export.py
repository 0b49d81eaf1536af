"""Writes a run that was fine-tuned or tuned back in the files of diffusers.

    python -m jaxgen.sampling.export RUN OUT
    python -m jaxgen.sampling.export RUN OUT --dtype=float16
    python -m jaxgen.sampling.export RUN OUT --merge

A run of `clip` becomes a folder that `CLIPModel.from_pretrained(OUT)` of transformers loads, without its captioner; the
metric `clip_score` reads it, too. A run of `prior` becomes a folder that `PriorTransformer.from_pretrained(OUT)` of
diffusers loads.

`OUT` of a run that was fine-tuned from a folder of diffusers is what `StableDiffusionPipeline.from_pretrained(OUT,
safety_checker=None)` of diffusers loads, and so does `config.init_from.pretrained=OUT` here. Groups that learned are
the run's averaged weights; the others, the tokenizer and the configs are those of the folder that the run began with.

`OUT` of a run of the method `tuned` has the files of its grafts: `pytorch_lora_weights.safetensors`,
`learned_embeds.safetensors`, `pytorch_custom_diffusion_weights.safetensors`, and a folder of each ControlNet. With
`--merge` it is the whole pipeline, with low-rank updates added to the weights in float32, and the files of new words
beside it.

`OUT` of a run of `pix2pix` or `cyclegan` has the generators as the authors' code loads them: `latest_net_G.pth`, or
`latest_net_G_A.pth` (from `image` to the other kind) and `latest_net_G_B.pth`.

`OUT` of a run of `stylegan2` has `generator.safetensors` and `discriminator.safetensors`, by the names of
StyleGAN2-ADA for PyTorch; `python -m jaxgen.sampling.publishing.stylegan OUT RUN` makes a run of them again.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from jaxgen import registry
from jaxgen.entry_point import Parser, a_path, add_trust, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_free
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.interop.diffusers_pipeline import INDEX, read_params, read_pipeline, save_pipeline
from jaxgen.number_types import number_type

if TYPE_CHECKING:
    from jaxgen.arrays import Params
    from jaxgen.methods.base import Method, Model
    from jaxgen.methods.translation.cyclegan import CycleGAN
    from jaxgen.methods.translation.pix2pix import Pix2Pix
    from jaxgen.methods.tuned import Tuned
    from jaxgen.sampling.restore import TrainedModel


def export(
    workdir: epath.PathLike,
    out: epath.PathLike,
    dtype: str = "",
    checkpoint: str | int = "last",
    trust: Sequence[str] = (),
    merge: bool = False,
) -> dict[str, str]:
    """Writes the folder; returns `{file in it: what it holds}`, where `model_index.json` stands for a whole pipeline.

    Args:
      workdir: the run's folder.
      out: the folder to write; it must be empty or missing.
      dtype: the type of all weights in the files; by default learned ones are float32 and others keep their own.
      checkpoint: "last", "best" or a step.
      trust: packages beside jaxgen whose classes the run's config may name.
      merge: whether a run with grafts becomes a whole pipeline.

    Raises:
      UserError: there is no such run, it has no form that diffusers reads, or `out` cannot be written.
    """
    from jaxgen.methods.contrastive.clip import CLIP
    from jaxgen.methods.diffusion.latent_diffusion import LatentDiffusion
    from jaxgen.methods.diffusion.prior import Prior
    from jaxgen.methods.gans.stylegan2 import StyleGAN2
    from jaxgen.methods.translation.cyclegan import CycleGAN
    from jaxgen.methods.translation.pix2pix import Pix2Pix
    from jaxgen.methods.tuned import Tuned
    from jaxgen.runs.pretrained import folder_of, pretrained_run
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.workdir import config_of_run
    from jaxgen.sampling.restore import restore

    dtype = number_type(dtype, "--dtype") if dtype else ""
    config = config_of_run(workdir, trust)
    folder, method = folder_of(config), make_method(config)
    whole = _is_whole(method, workdir, dtype, merge)
    writers = {CLIP: _write_clip, Prior: _write_prior, StyleGAN2: _write_stylegan}
    alone = writers.get(type(method))
    if alone is not None:
        check_free(out, "OUT")
        return alone(pathlib.Path(out), restore(config, workdir, checkpoint), dtype)
    if whole and (folder is None or not isinstance(_base(method), LatentDiffusion)):
        raise UserError(
            f"{workdir} is no run of latent_diffusion that began with a folder of diffusers "
            "(config.init_from.pretrained), so there is none to write it back to."
        )
    check_free(out, "OUT")
    if isinstance(method, Pix2Pix | CycleGAN):
        return _write_translation(pathlib.Path(out), method, restore(config, workdir, checkpoint).model)
    if merge and "dtype" in config.init_from:
        config.init_from.dtype = ""  # what is merged is not rounded first
    params = restore(config, workdir, checkpoint).model.params
    if isinstance(method, Tuned):
        return _write_grafts(
            pathlib.Path(out), method, params, folder, dtype, merge, pretrained_run(config) is not None
        )
    learned = _learned(method)
    return _write_pipeline(out, str(folder), {group: params[group] for group in learned}, dtype)


def _write_clip(out: pathlib.Path, trained: TrainedModel, dtype: str) -> dict[str, str]:
    """Writes a folder of transformers' CLIPModel."""
    from jaxgen.data.word_tokenizer import WordTokenizer
    from jaxgen.interop.clip_towers import save_towers
    from jaxgen.methods.contrastive.clip import CLIP
    from jaxgen.runs.loaded_groups import as_type

    method, params = trained.generator.method, trained.model.params
    assert isinstance(method, CLIP)
    tokenizer = trained.generator.tokenizer
    words = tokenizer if isinstance(tokenizer, WordTokenizer) else None
    groups = {group: params[group] for group in ("image", "text", "logit_scale") if group in params}
    save_towers(out, method.image, method.text, as_type(groups, dtype), words)
    told = "a CLIPModel of transformers" + ("" if method.captioner is None else "; the captioner is no part of it")
    if words is None:
        told += "; the tokenizer is the one that the data were read with, and is not written"
    return {"model.safetensors": told}


def _is_whole(method: Method, workdir: epath.PathLike, dtype: str, merge: bool) -> bool:
    """Returns whether a run becomes a whole pipeline. Raises a UserError for options that it has no use for."""
    from jaxgen.methods.translation.cyclegan import CycleGAN
    from jaxgen.methods.translation.pix2pix import Pix2Pix
    from jaxgen.methods.tuned import Tuned
    from jaxgen.sampling.grafts.written import check_grafts

    if isinstance(method, Tuned):
        check_grafts(method.grafts, merge)
        return merge
    if merge:
        raise UserError(f"--merge is for runs with grafts, and {workdir} has none; leave it out.")
    translation = isinstance(method, Pix2Pix | CycleGAN)
    if translation and dtype:
        raise UserError(f"--dtype is for files of diffusers, and {workdir} is a translation; leave it out.")
    return not translation


def _write_translation(out: pathlib.Path, method: Pix2Pix | CycleGAN, model: Model) -> dict[str, str]:
    """Writes `latest_net_G.pth`, or those of both directions, where A is the kind of `image` and B the other one."""
    from jaxgen.interop.translation.networks import write
    from jaxgen.methods.translation.pix2pix import Pix2Pix

    paired = isinstance(method, Pix2Pix)
    names = {"generator": "G"} if paired else {"to_other": "G_A", "to_image": "G_B"}
    for group, name in names.items():
        write(out / f"latest_net_{name}.pth", method.generator, model.params[group], model.memory.get(group))
    told = "the generator" if paired else "a generator of CycleGAN"
    return {f"latest_net_{name}.pth": f"{told}, the group {group!r}" for group, name in names.items()}


def _write_prior(out: pathlib.Path, trained: TrainedModel, dtype: str) -> dict[str, str]:
    """Writes a folder of diffusers' PriorTransformer, whose `post_process_latents` gives the run's embeddings."""
    from jaxgen.interop.diffusers_files import MODEL
    from jaxgen.interop.unclip.prior import NAME, Statistics, as_prior, save_prior
    from jaxgen.methods.diffusion.prior import Prior
    from jaxgen.runs.loaded_groups import as_type

    method = trained.generator.method
    assert isinstance(method, Prior)
    width, scale = method.vectors.width, method.vectors.scale
    statistics = Statistics(np.zeros(width, np.float32), np.full(width, 1 / scale, np.float32))
    save_prior(out, as_prior(method.network), as_type(trained.model.params["denoiser"], dtype), statistics)
    return {f"{MODEL}.safetensors": f"a {NAME} of diffusers; the text tower is that of the run's CLIP"}


def _write_stylegan(out: pathlib.Path, trained: TrainedModel, dtype: str) -> dict[str, str]:
    """Writes the averaged generator and the discriminator by their published names."""
    from jaxgen.interop.diffusers_files import Entry, save_weights
    from jaxgen.interop.stylegan.layout import NETWORKS, published
    from jaxgen.methods.gans.stylegan2 import StyleGAN2
    from jaxgen.runs.loaded_groups import as_type

    method, model = trained.generator.method, trained.model
    assert isinstance(method, StyleGAN2)
    told = {}
    for group, known in NETWORKS.items():
        network = getattr(method, group)
        if not isinstance(network, known):
            raise UserError(
                f"the run's {group} is {registry.config_name(type(network))!r}; only the networks of StyleGAN2 have "
                "published names."
            )
        variables = {"params": as_type(model.params[group], dtype), **(model.memory.get(group) or {})}
        arrays = published(variables, network, method.image_shape)
        entries = [Entry(name, x, tuple(range(x.ndim))) for name, x in arrays.items()]
        save_weights(out / f"{group}.safetensors", entries)
        told[f"{group}.safetensors"] = f"the {group} by the names of StyleGAN2-ADA for PyTorch"
    return told


def _base(method: Method) -> Method:
    return getattr(method, "trained", method)


def _learned(method: Method) -> list[str]:
    """Returns the groups that the turns of a method train."""
    from jaxgen.methods.base import learned_groups

    return list(learned_groups(method, method.stages[-1][1]))


def _write_pipeline(out: epath.PathLike, folder: str, changed: Params, dtype: str) -> dict[str, str]:
    """Writes a folder of diffusers with some groups changed."""
    save_pipeline(out, read_pipeline(folder), {**read_params(folder, ""), **changed}, dtype)
    return {INDEX: f"a StableDiffusionPipeline; {' and '.join(changed)} learned, the rest is as it was"}


def _write_grafts(
    out: pathlib.Path, method: Tuned, params: Params, folder: str | None, dtype: str, merge: bool, run: bool
) -> dict[str, str]:
    from jaxgen.sampling.grafts import written

    if merge:
        weights, own = written.merged(method, params), _learned(method.trained) if run else []
        changed = dict.fromkeys([*own, *written.merged_groups(method)])
        files = _write_pipeline(out, str(folder), {group: weights[group] for group in changed}, dtype)
    else:
        linear = folder is None or bool(read_pipeline(folder).configs["unet"].get("use_linear_projection", False))
        files = {}
        for write in (written.write_leaves, written.write_low_rank, written.write_controls, written.write_motions):
            files |= write(out, method, params, linear, dtype)
    return files | written.write_words(out, method, params, dtype)


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the folder and says what it holds."""
    parser = Parser(prog="python -m jaxgen.sampling.export", description="Writes a run in the files of diffusers.")
    parser.add_argument("workdir", metavar="RUN", type=a_path("RUN"), help="the run, begun with init_from.pretrained")
    parser.add_argument("out", metavar="OUT", type=a_path("OUT"), help="the folder to write")
    parser.add_argument("--dtype", default="", help="type of all weights, such as float16; by default as they are")
    parser.add_argument("--checkpoint", default="last", help="last, best or a step")
    parser.add_argument("--merge", action="store_true", help="write a whole pipeline with the run's grafts in it")
    add_trust(parser)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    use_compilation_cache()
    files = export(given.workdir, given.out, given.dtype, given.checkpoint, given.trust, given.merge)
    for file, told in files.items():
        print(f"{given.out}/{file}: {told}")


if __name__ == "__main__":
    sys.exit(main())
