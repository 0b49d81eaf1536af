"""Puts files of small parts on a trained model for sampling: low-rank updates (LoRA), new words, ControlNets.

An adapter is a graft that does not learn (`jaxgen.methods.grafts`): its order and its arithmetic are those of tuning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxgen.arrays import Params, Tree
from jaxgen.errors import UserError
from jaxgen.interop.adapters.learned_embeds import read_embeds
from jaxgen.interop.adapters.lora import lora_file, read_lora
from jaxgen.interop.adapters.motion import read_motion
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import Graft, in_order
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.grafts.motion import Motion
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.methods.tuned import Tuned, words_of
from jaxgen.runs.tuning.files import controlnet_part, layer_names, leaves_part, low_rank_part
from jaxgen.sampling.grafts.requests import Adapter

Words = dict[str, tuple[int, ...]]


def adapted(method: Method, params: Params, adapters: Sequence[Adapter]) -> tuple[Method, Params, Words]:
    """Returns a method and its parameters with adapters on them, and `{word: its token ids}` of new words.

    Args:
      method: a method of a trained model, which may have grafts of its own.
      params: its parameters.
      adapters: the files, in any order.

    Raises:
      UserError: a file cannot be read, or does not belong to the model.
    """
    grafts: dict[str, Graft] = {}
    parts: dict[str, Tree] = {}
    base = method.trained if isinstance(method, Tuned) else method
    controls = sum(isinstance(graft, Control) for graft in method.grafts.values()) if isinstance(method, Tuned) else 0
    for number, adapter in enumerate(adapters, 1):
        if adapter.kind == "controlnet":
            controls += 1
            found = _control(base, adapter, controls)
        else:
            found = READ[adapter.kind](base, params, adapter)
        for name, (graft, part) in found.items():
            name = f"~{number}_{name}"  # behind the grafts of the model, whose words keep their ids
            grafts[name], parts[name] = graft, jax.tree.map(jnp.asarray, part)
    if isinstance(method, Tuned):
        words = words_of(base, {**method.grafts, **grafts})
        fresh = {word: ids for word, ids in words.items() if word not in method.words}
        _check(base, params, {**method.grafts, **grafts}, parts)
        return dataclasses.replace(method, grafts={**method.grafts, **grafts}), {**params, **parts}, fresh
    words = words_of(method, grafts)
    return *_check(method, params, grafts, parts), words


def _check(method: Method, params: Params, grafts: dict[str, Graft], parts: dict[str, Tree]) -> tuple[Method, Params]:
    """Returns a method and parameters with grafts on them. Raises a UserError where a part does not fit."""
    for name, graft in in_order(grafts):
        part = graft.loaded(name, parts[name], method, params, {}) if name in parts else params[name]
        method, params = graft.onto(method), graft.grafted(params, part)
    return method, params


def _updates(base: Method, params: Params, adapter: Adapter) -> dict[str, tuple[Graft, Tree]]:
    file = lora_file(adapter.file, "--adapter")
    found = read_lora(file, layer_names(base, params))
    return {
        group: (LowRank(group=group, file=str(file), learns=False), low_rank_part(updates, adapter.scale))
        for group, updates in found.items()
    }


def _rows(base: Method, params: Params, adapter: Adapter) -> dict[str, tuple[Graft, Tree]]:
    if "text" not in params:
        raise UserError(f"{adapter}: this model reads no texts, so that a new word has no use; leave it out.")
    word, vectors = read_embeds(adapter.file, "--adapter")
    graft = TokenRows(count=len(vectors), word=adapter.word or word, file=adapter.file, learns=False)
    return {"word": (graft, {"rows": vectors})}


def _leaves(base: Method, params: Params, adapter: Adapter) -> dict[str, tuple[Graft, Tree]]:
    part = leaves_part(adapter.file, "--adapter", layer_names(base, params))
    return {"leaves": (Leaves(file=adapter.file, learns=False), part)}


def _motion(base: Method, params: Params, adapter: Adapter) -> dict[str, tuple[Graft, Tree]]:
    options, part = read_motion(adapter.file, f"--adapter={adapter.kind}", Motion().unet(base))
    graft = Motion(frames=adapter.frames, file=adapter.file, learns=False, **options._asdict())
    return {"motion": (graft, part)}


# {kind: what reads its file}
READ = {"lora": _updates, "embedding": _rows, "custom_diffusion": _leaves, "motion": _motion}


def _control(base: Method, adapter: Adapter, number: int) -> dict[str, tuple[Graft, Tree]]:
    """Returns the control of a folder; the first one reads the entry `hint`, and others `hint_2`, `hint_3`, ..."""
    part = controlnet_part(adapter.file, "--adapter", base)
    graft = Control(
        entry="hint" if number == 1 else f"hint_{number}",
        scale=adapter.scale,
        channels=part["hint"]["conv_in"]["kernel"].shape[-2],
        file=adapter.file,
        learns=False,
    )
    return {"control": (graft, part)}
