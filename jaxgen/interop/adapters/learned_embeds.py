"""Reads and writes the vectors of new words (textual inversion, Gal et al. 2022): `learned_embeds.safetensors`.

A file of diffusers has one tensor, [D] or [n, D], whose key is the word. Files of A1111's interface have it under
`emb_params`, and their word is the file's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.adapters.lora import usual_file
from jaxgen.interop.diffusers_files import Entry, Weights, check_floating, read_header, save_weights

FILE = "learned_embeds.safetensors"
NAMELESS = "emb_params"  # the key of a file that does not say its word


def read_embeds(path: str | os.PathLike[str], named_by: str) -> tuple[str, np.ndarray]:
    """Returns the word of a file, and its vectors float32 `[n, D]`.

    Args:
      path: a file, or a folder with `learned_embeds.safetensors`.
      named_by: the flag or the key that names it, for messages.

    Raises:
      UserError: the file is missing, damaged, a pickle, or holds anything but the vectors of one word.
    """
    place = usual_file(path, FILE, named_by)
    weights = Weights(read_header(place), place)
    if len(weights) != 1:
        raise UserError(
            f"{named_by}={place} holds {len(weights)} tensors, where the vectors of one word are one tensor, whose key "
            "is the word."
        )
    ((key, vectors),) = weights.items()
    check_floating(key, vectors.dtype, os.fspath(place))
    if vectors.ndim not in (1, 2) or not vectors.size:
        raise UserError(f"{named_by}={place}: {key!r} has shape {vectors.shape}, where [D] or [n, D] is needed.")
    word = place.stem if key == NAMELESS else key
    return word, np.atleast_2d(vectors.astype(np.float32))


def write_embeds(path: str | os.PathLike[str], words: Mapping[str, np.ndarray], dtype: str = "") -> None:
    """Writes the vectors `[n, D]` of one word, `{word: vectors}`, as [D] where there is one of them.

    Args:
      dtype: the type in the file; "" keeps that of the vectors.
    """
    arrays = {word: np.asarray(rows)[0] if len(rows) == 1 else np.asarray(rows) for word, rows in words.items()}
    entries = (Entry(word, rows, tuple(range(rows.ndim))) for word, rows in arrays.items())
    save_weights(path, entries, dtype)
