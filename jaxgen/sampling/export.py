"""Writes a run that was fine-tuned from a folder of diffusers back as such a folder.

    python -m jaxgen.sampling.export RUN OUT
    python -m jaxgen.sampling.export RUN OUT --dtype=float16

`OUT` is what `StableDiffusionPipeline.from_pretrained(OUT, safety_checker=None)` of diffusers loads, and so does
`config.init_from.pretrained=OUT` here. Groups that learned are the run's averaged weights; the others, the tokenizer
and the configs are those of the folder that the run began with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from etils import epath

from jaxgen.entry_point import Parser, a_path, add_trust, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_writable
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.interop.diffusers_pipeline import read_params, read_pipeline, save_pipeline
from jaxgen.number_types import number_type


def export(
    workdir: epath.PathLike,
    out: epath.PathLike,
    dtype: str = "",
    checkpoint: str | int = "last",
    trust: Sequence[str] = (),
) -> list[str]:
    """Writes the folder; returns the names of the groups that the run learned.

    Args:
      workdir: the run's folder.
      out: the folder to write; it must be empty or missing.
      dtype: the type of all weights in the files; by default learned ones are float32 and others keep their own.
      checkpoint: "last", "best" or a step.
      trust: packages beside jaxgen whose classes the run's config may name.

    Raises:
      UserError: there is no such run, it was not begun with a folder of diffusers, or `out` cannot be written.
    """
    from jaxgen.methods.diffusion.latent_diffusion import LatentDiffusion
    from jaxgen.runs.pretrained import folder_of
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    dtype = number_type(dtype, "--dtype") if dtype else ""
    config = stored_config(workdir, trust)
    if config is None:
        raise UserError(f"{workdir} holds no run that can be used (it has no config.json).")
    folder = folder_of(config)
    if folder is None or not isinstance(make_method(config), LatentDiffusion):
        raise UserError(
            f"{workdir} is no run of latent_diffusion that began with a folder of diffusers "
            "(config.init_from.pretrained), so there is none to write it back to."
        )
    check_writable(out, "OUT")
    place = epath.Path(out)
    if place.exists() and any(place.iterdir()):
        raise UserError(f"OUT={out} has files already; name a folder that is empty or missing.")
    pipeline, method, params = read_pipeline(folder), make_method(config), read_params(folder, "")
    learned = list(dict.fromkeys(group for turn in method.turns(method.stages[-1][1]) for group in turn.groups))
    model = restore(config, workdir, checkpoint).model
    save_pipeline(out, pipeline, {**params, **{group: model.params[group] for group in learned}}, dtype)
    return learned


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the folder and says what it holds."""
    parser = Parser(prog="python -m jaxgen.sampling.export", description="Writes a run as a folder of diffusers.")
    parser.add_argument("workdir", metavar="RUN", type=a_path("RUN"), help="the run, begun with init_from.pretrained")
    parser.add_argument("out", metavar="OUT", type=a_path("OUT"), help="the folder to write")
    parser.add_argument("--dtype", default="", help="type of all weights, such as float16; by default as they are")
    parser.add_argument("--checkpoint", default="last", help="last, best or a step")
    add_trust(parser)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    use_compilation_cache()
    learned = export(given.workdir, given.out, given.dtype, given.checkpoint, given.trust)
    print(f"{given.out}: a StableDiffusionPipeline; {' and '.join(learned)} learned, the rest is as it was")


if __name__ == "__main__":
    sys.exit(main())
