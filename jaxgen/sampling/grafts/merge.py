"""Merges what Custom Diffusion learned of several concepts into the files of one.

    python -m jaxgen.sampling.grafts.merge RUN_A RUN_B --regularisation=captions.txt --out=OUT
    python -m jaxgen.sampling.grafts.merge A "B:<new2>" --base=FOLDER --prompts=prompts.txt
        --regularisation=captions.txt --out=OUT

A concept is a run of the method `tuned` whose grafts are `leaves` of keys and values and `token_rows`, or a folder with
the files of one, `pytorch_custom_diffusion_weights.safetensors` and `learned_embeds.safetensors`. `:<word>` behind it
calls its word otherwise. `OUT` has the same two kinds of files, which are put on the model that was tuned by
`--adapter=custom_diffusion:OUT --adapter=embedding:OUT/1.learned_embeds.safetensors`, and so on for the other words.

`--prompts` has captions of the concepts, one a line, each with the word of one of them: for their tokens the merged
keys and values give what those of the concept gave. For a run they are by default the captions it was tuned with, of
its config or beside its pictures. `--regularisation` has captions of anything, one a line, for which keys and values
should change least. Some hundreds of them, with thousands of tokens, are enough for the 768 features of Stable
Diffusion 1.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from jaxgen.entry_point import Parser, a_path, add_trust, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_free, read_lines, user_path
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.number_types import number_type

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxgen.arrays import Params
    from jaxgen.interop.adapters.lora import Names
    from jaxgen.methods.base import Method
    from jaxgen.sampling.grafts.merging import Concept, Merged, Tokenizer


def merge_concepts(
    sources: Sequence[str],
    out: epath.PathLike,
    regularisation: epath.PathLike,
    prompts: epath.PathLike = "",
    base: str = "",
    dtype: str = "",
    trust: Sequence[str] = (),
) -> tuple[dict[str, str], Merged]:
    """Writes the files of merged concepts; returns `{file in out: what it holds}`, and how well they were merged.

    Args:
      sources: the concepts: runs, or folders of files, each with `:<word>` where its word is called otherwise.
      out: the folder to write; it must be empty or missing.
      regularisation: a file of captions of anything, one a line.
      prompts: a file of captions of the concepts, one a line; "" for those that runs were tuned with.
      base: the model that they were tuned on, a run or a folder of diffusers; "" for that of the runs.
      dtype: the type of the tensors in the files; "" for float32.
      trust: packages beside jaxgen whose classes the config of a run may name.

    Raises:
      UserError: a concept, a caption or the model cannot be used, or `out` cannot be written.
    """
    from jaxgen.sampling.grafts.merging import check_words, merge

    dtype = number_type(dtype, "--dtype") if dtype else ""
    lines = {
        flag: read_lines(user_path(os.fspath(file), flag), flag)
        for flag, file in _named(regularisation, prompts).items()
    }
    check_free(out, "--out")
    named = [_named_source(text) for text in sources]
    runs = {place: config for place, _ in named if (config := _run_of(place, trust)) is not None}
    base = base or _common_base(runs)
    method, params, tokenizer, names = _open_base(base, trust)
    concepts = [_concept(place, word, runs.get(place), names, lines.get("--prompts"), trust) for place, word in named]
    check_words(concepts)
    if "--prompts" in lines:
        _check_all_used(lines["--prompts"], concepts)
    merged = merge(method, params, tokenizer, concepts, lines["--regularisation"])
    return _write(pathlib.Path(out), concepts, merged, names, dtype), merged


def _named(regularisation: epath.PathLike, prompts: epath.PathLike) -> dict[str, epath.PathLike]:
    return {"--regularisation": regularisation} | ({"--prompts": prompts} if prompts else {})


def _named_source(text: str) -> tuple[str, str]:
    """Returns the place of a concept, and what its word is to be called; "" keeps its own."""
    place, _, word = text.rpartition(":")
    if place and word and not {"/", "."} & {*word} and not os.path.exists(text):
        return os.fspath(user_path(place, "CONCEPT")), word
    return os.fspath(user_path(text, "CONCEPT")), ""


def _run_of(place: str, trust: Sequence[str]) -> ConfigDict | None:
    """Returns the config of a run of Custom Diffusion; None for a folder that is no run.

    Raises:
      UserError: a run of something else, or there is no such folder.
    """
    from jaxgen.methods.grafts.leaves import Leaves
    from jaxgen.methods.grafts.token_rows import TokenRows
    from jaxgen.methods.tuned import Tuned
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.workdir import stored_config

    if not os.path.isdir(place):
        raise UserError(
            f"CONCEPT={place}: there is no such folder; name a run, or a folder of Custom Diffusion's files."
        )
    config = stored_config(place, trust)
    if config is None:
        return None
    method = make_method(config)
    if not isinstance(method, Tuned):
        raise UserError(f"{place} is no run of the method tuned; name one whose grafts are leaves and token_rows.")
    other = next((n for n, graft in method.grafts.items() if not isinstance(graft, Leaves | TokenRows)), None)
    if other is not None:
        raise UserError(
            f"{place} has the graft {other!r} of the class {type(method.grafts[other]).__name__}, and keys and values "
            "(leaves) and words (token_rows) alone are merged."
        )
    return config


def _common_base(runs: dict[str, ConfigDict]) -> str:
    named = {place: os.fspath(config.init_from.pretrained) for place, config in runs.items()}
    if not named:
        raise UserError("folders of files do not say what was tuned: give --base=<folder of diffusers, or run>.")
    if len({*named.values()}) > 1:
        said = ", ".join(f"{place} on {base}" for place, base in named.items())
        raise UserError(f"the concepts were tuned on different models, {said}: those of one model are merged.")
    return next(iter(named.values()))


def _open_base(base: str, trust: Sequence[str]) -> tuple[Method, Params, Tokenizer, Names]:
    """Returns a model's method, parameters and tokenizer, and the names of its denoiser's layers in files."""
    from jaxgen.config import defaults, section
    from jaxgen.interop.diffusers_pipeline import is_pipeline, read_params, read_pipeline
    from jaxgen.methods.tuned import Tuned
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.tuning.files import layer_names
    from jaxgen.runs.tuning.words import base_tokenizer
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    config, linear = defaults(), True
    config.init_from.pretrained = base
    place = user_path(base, "--base")
    if is_pipeline(place):
        config.method, config.sampler = section(name="stable_diffusion"), section(name="ddim", steps=1, clip=False)
        method, params = make_method(config), read_params(os.fspath(place))
        linear = bool(read_pipeline(os.fspath(place)).configs["unet"].get("use_linear_projection", False))
    else:
        stored = stored_config(place, trust)
        if stored is None:
            raise UserError(f"--base={base} is neither a run nor a folder that diffusers wrote; name what was tuned.")
        trained = restore(stored, place)
        method, params = trained.generator.method, trained.model.params
        if isinstance(method, Tuned):
            raise UserError(f"--base={base} has grafts itself; name the model that it was tuned on.")
    tokenizer = base_tokenizer(config)
    if tokenizer is None or "denoiser" not in params:
        raise UserError(f"--base={base} draws nothing that texts say; name the model that was tuned.")
    return method, params, tokenizer, layer_names(method, params, linear)["denoiser"]


def _concept(
    place: str, word: str, run: ConfigDict | None, names: Names, prompts: list[str] | None, trust: Sequence[str]
) -> Concept:
    """Reads a concept of a run or of files."""
    from jaxgen.sampling.export import export
    from jaxgen.sampling.grafts.merging import Concept

    if run is None:
        leaves, words = _read_files(pathlib.Path(place), place, names)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            export(place, pathlib.Path(scratch) / "files", trust=trust)
            leaves, words = _read_files(pathlib.Path(scratch) / "files", place, names)
    if word and len(words) != 1:
        raise UserError(f"{place} has the words {', '.join(words)}, so that one name, {word!r}, is not enough.")
    own = next(iter(words))
    if word:
        words = {word: words[own]}
    if prompts is not None:
        captions = [text for text in prompts if any(_has(text, known) for known in words)]
    else:
        captions = [text.replace("{}", own) for text in (_tuned_with(run, own) if run is not None else ())]
        captions = [text.replace(own, word) for text in captions] if word else captions
    if not captions:
        raise UserError(
            f"There is no caption of {place} with its word {' or '.join(words)}: write some in a file, one a line, "
            "and name it by --prompts."
        )
    return Concept(place, leaves, words, captions)


def _tuned_with(run: ConfigDict, word: str) -> Sequence[str]:
    """Returns the captions that a run was tuned with: those of its config, or those of its pictures with the word."""
    from jaxgen.runs.setup import open_split

    if run.data.captions:
        return tuple(run.data.captions)
    source = open_split(run, run.data.split)
    found = dict.fromkeys(str(source[i].get("caption", "")) for i in range(len(source)))  # each once, in their order
    return [text for text in found if _has(text, word)]


def _read_files(folder: pathlib.Path, place: str, names: Names) -> tuple[dict, dict]:
    """Returns the kernels and the words in a folder of files."""
    from jaxgen.interop.adapters import learned_embeds
    from jaxgen.interop.adapters.custom_diffusion import FILE, read_custom_diffusion

    if not (folder / FILE).is_file():
        raise UserError(f"{place} has no {FILE}, and no run: name a run, or a folder of Custom Diffusion's files.")
    files = sorted(folder.glob(f"*{learned_embeds.FILE}"))
    if not files:
        raise UserError(f"{place} has no {learned_embeds.FILE} with the concept's word; copy it there.")
    return read_custom_diffusion(folder, names, "CONCEPT"), dict(
        learned_embeds.read_embeds(file, "CONCEPT") for file in files
    )


def _has(text: str, word: str) -> bool:
    return word.lower() in text.lower()


def _check_all_used(prompts: Sequence[str], concepts: Sequence[Concept]) -> None:
    """Raises a UserError unless each prompt has words of one concept."""
    words = [word for concept in concepts for word in concept.words]
    for text in prompts:
        owners = [concept.name for concept in concepts if text in concept.captions]
        if len(owners) != 1:
            what = "none of the words" if not owners else "words of several concepts among"
            raise UserError(f"--prompts: {text!r} has {what} {', '.join(words)}; a caption is of one concept.")


def _write(out: pathlib.Path, concepts: Sequence[Concept], merged: Merged, names: Names, dtype: str) -> dict[str, str]:
    from jaxgen.interop.adapters import custom_diffusion, learned_embeds

    out.mkdir(parents=True, exist_ok=True)
    custom_diffusion.write_custom_diffusion(out / custom_diffusion.FILE, merged.leaves, names, dtype)
    found = {custom_diffusion.FILE: f"{len(merged.leaves)} keys and values of {len(concepts)} concepts"}
    words = [(word, rows) for concept in concepts for word, rows in concept.words.items()]
    for number, (word, rows) in enumerate(words, 1):
        file = learned_embeds.FILE if len(words) == 1 else f"{number}.{learned_embeds.FILE}"
        learned_embeds.write_embeds(out / file, {word: rows}, dtype)
        found[file] = f"the word {word} of {len(rows)} vectors"
    return found


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the files, and says what they hold and what changed."""
    parser = Parser(
        prog="python -m jaxgen.sampling.grafts.merge", description="Merges concepts of Custom Diffusion into one file."
    )
    parser.add_argument("concepts", metavar="CONCEPT", nargs="+", help="a run, or a folder of files, [:<word>]")
    parser.add_argument("--regularisation", required=True, type=a_path("--regularisation"), help="captions, one a line")
    parser.add_argument("--prompts", default="", help="captions of the concepts, one a line, with their words")
    parser.add_argument("--base", default="", help="the model that was tuned: a run, or a folder of diffusers")
    parser.add_argument("--out", required=True, type=a_path("--out"), help="the folder to write")
    parser.add_argument("--dtype", default="", help="type of all tensors, such as float16; by default float32")
    add_trust(parser)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    use_compilation_cache()
    files, merged = merge_concepts(
        given.concepts, given.out, given.regularisation, given.prompts, given.base, given.dtype, given.trust
    )
    for file, told in files.items():
        print(f"{given.out}/{file}: {told}")
    alone = ", ".join(f"{100 * share:.2g} %" for share in merged.alone)
    print(
        f"{merged.tokens} tokens of the concepts keep their keys and values within {merged.error:.1g} of their size; "
        f"those of {merged.others:,} tokens of other captions change by {100 * merged.change:.2g} % (alone: {alone})"
    )


if __name__ == "__main__":
    sys.exit(main())
