"""Writes the grafts of a tuned run as files that diffusers reads, or merges them into the networks that they are on."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from jaxgen.arrays import Params
from jaxgen.errors import UserError
from jaxgen.interop.adapters import controlnet, custom_diffusion, learned_embeds, lora, motion
from jaxgen.methods.grafts.base import Graft, in_order
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.grafts.motion import Motion
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.methods.tuned import Tuned
from jaxgen.runs.tuning.files import layer_names


def check_grafts(grafts: Mapping[str, Graft], merge: bool) -> None:
    """Checks that all grafts have a form outside of jaxgen, before anything is read or written.

    Raises:
      UserError: naming a graft without one.
    """
    for name, graft in grafts.items():
        if isinstance(graft, TokenRows) and not graft.word:
            raise UserError(
                f"The graft {name!r} teaches a word without a name, and a file needs one: set "
                f"config.method.grafts.{name}.word before the run is trained."
            )
        if isinstance(graft, Control | Motion) and merge:
            what = "a ControlNet, which stands beside the U-Net" if isinstance(graft, Control) else "of temporal layers"
            raise UserError(f"The graft {name!r} is {what} and cannot be merged into it: leave --merge out.")
        if isinstance(graft, Leaves) and not merge and graft.group != "denoiser":
            raise UserError(
                f"The graft {name!r} changes the group {graft.group!r}, and only those of the denoiser's attentions "
                "have a file of their own: give --merge for the whole pipeline with it."
            )
        if not isinstance(graft, LowRank | TokenRows | Leaves | Control | Motion):
            raise UserError(
                f"The graft {name!r} is of the class {type(graft).__name__}, which has no file format that other "
                "programs read; written are low_rank, token_rows, control, motion and leaves."
            )
    if merge and all(isinstance(graft, TokenRows) for graft in grafts.values()):
        raise UserError("--merge has no use: the run has no graft that is merged into a network; leave it out.")


def write_words(out: pathlib.Path, method: Tuned, params: Params, dtype: str = "") -> dict[str, str]:
    """Writes the vectors of each new word; returns `{file name: what it holds}`.

    The file of one word has the name that diffusers looks for; those of several have the graft's name in theirs.
    """
    rows = {name: graft for name, graft in in_order(method.grafts) if isinstance(graft, TokenRows)}
    found = {}
    for name, graft in rows.items():
        file = learned_embeds.FILE if len(rows) == 1 else f"{name}.{learned_embeds.FILE}"
        learned_embeds.write_embeds(out / file, {graft.word: params[name]["rows"]}, dtype)
        found[file] = f"the word {graft.word} of {graft.rows} vectors, for load_textual_inversion"
    return found


def write_low_rank(
    out: pathlib.Path, method: Tuned, params: Params, linear: bool = True, dtype: str = ""
) -> dict[str, str]:
    """Writes all low-rank updates to one file; returns `{file name: what it holds}`.

    Updates of one layer by several grafts become one of the sum of their ranks, which computes the same.

    Args:
      linear: see `jaxgen.interop.adapters.lora.names_of`.
    """
    updates: dict[str, dict[str, lora.Update]] = {}
    for name, graft in in_order(method.grafts):
        if isinstance(graft, LowRank):
            layers = updates.setdefault(graft.group, {})
            for path, (a, b) in graft.scaled(params[name]).items():
                layers[path] = _sum(layers.get(path), np.asarray(a), np.asarray(b))
    if not updates:
        return {}
    base = {group: tree for group, tree in params.items() if group not in method.grafts}
    lora.write_lora(out / lora.FILE, updates, layer_names(method.trained, base, linear), dtype)
    count = sum(map(len, updates.values()))
    return {lora.FILE: f"low-rank updates of {count} layers in {' and '.join(updates)}, for load_lora_weights"}


def _sum(before: lora.Update | None, a: np.ndarray, b: np.ndarray) -> lora.Update:
    if before is None:
        return lora.Update(a, b)
    return lora.Update(np.concatenate([before.a, a], axis=-1), np.concatenate([before.b, b], axis=0))


def write_controls(
    out: pathlib.Path, method: Tuned, params: Params, linear: bool = True, dtype: str = ""
) -> dict[str, str]:
    """Writes a folder of each control, which has the graft's name; returns `{folder: what it holds}`.

    Args:
      linear: see `jaxgen.interop.adapters.lora.names_of`.
    """
    found = {}
    for name, graft in in_order(method.grafts):
        if isinstance(graft, Control):
            network = graft.network(method.trained, params[name])
            controlnet.write_controlnet(out / name, params[name], network, linear, dtype)
            found[name] = f"a ControlNet of the hint {graft.entry!r}, for ControlNetModel.from_pretrained"
    return found


def write_motions(
    out: pathlib.Path, method: Tuned, params: Params, linear: bool = True, dtype: str = ""
) -> dict[str, str]:
    """Writes a folder of the temporal layers of each motion graft, of its name; returns `{folder: what it holds}`.

    Args:
      linear: of no use here; see `jaxgen.interop.adapters.lora.names_of`.
    """
    found = {}
    for name, graft in in_order(method.grafts):
        if isinstance(graft, Motion):
            middle = "middle_attention" in params[name]
            options = motion.MotionOptions(graft.heads, graft.depth, middle, graft.positions)
            motion.write_motion(out / name, params[name], graft.unet(method.trained), options, dtype)
            found[name] = "temporal layers, for MotionAdapter.from_pretrained"
    return found


def write_leaves(
    out: pathlib.Path, method: Tuned, params: Params, linear: bool = True, dtype: str = ""
) -> dict[str, str]:
    """Writes the parameters of attentions that learned to one file; returns `{file name: what it holds}`.

    Args:
      linear: see `jaxgen.interop.adapters.lora.names_of`.

    Raises:
      UserError: other parameters than those of attentions learned.
    """
    found: dict[str, np.ndarray] = {}
    for name, graft in in_order(method.grafts):
        if isinstance(graft, Leaves):
            found |= {key.replace("|", "/"): np.asarray(leaf) for key, leaf in params[name].items()}
    if not found:
        return {}
    base = {group: tree for group, tree in params.items() if group not in method.grafts}
    names = layer_names(method.trained, base, linear)["denoiser"]
    try:
        custom_diffusion.write_custom_diffusion(out / custom_diffusion.FILE, found, names, dtype)
    except UserError as error:
        raise UserError(f"{error} Or give --merge for the whole pipeline with what learned.") from error
    return {custom_diffusion.FILE: f"{len(found)} parameters of attentions, for unet.load_attn_procs"}


def merged_groups(method: Tuned) -> list[str]:
    """Returns the groups that `merged` changes."""
    return [graft.group for _, graft in in_order(method.grafts) if isinstance(graft, LowRank | Leaves)]


def merged(method: Tuned, params: Params) -> Params:
    """Returns the trained method's parameters with low-rank updates and leaves in them, in float32.

    New words are no part of it: they have a file of their own (`write_words`).
    """
    found = {group: tree for group, tree in params.items() if group not in method.grafts}
    for name, graft in in_order(method.grafts):
        if isinstance(graft, LowRank):
            found = graft.merged(found, params[name])
        elif isinstance(graft, Leaves):
            found = graft.grafted(found, params[name])
    return found
