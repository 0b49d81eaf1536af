"""Holds texts for text-to-image models, and files of noise to start from, as the command line gives them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.data.lost_text import shown, summary
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.files.arrays import read_npy
from jaxgen.interop.diffusers_pipeline import read_pipeline, read_tokenizer
from jaxgen.methods.diffusion.stable_diffusion import StableDiffusion

log = logging.getLogger("jaxgen")
MOST_LINES = 20  # after so many texts that lost something, one line sums up


@dataclasses.dataclass(frozen=True)
class TextRequest:
    """Holds a request to a text-to-image model: image i has prompt `i % N` of the N prompts, and row i of the noise."""

    prompts: Sequence[str]  # at least one
    negative_prompt: str = ""  # the text that classifier-free guidance moves away from
    noise: str | os.PathLike[str] = ""  # an npy file of standard normal noise to start from; "" draws the noise
    num: int = 1  # how many images; the noise file must have at least as many rows


def text_conditions(
    method: StableDiffusion,
    folder: str | os.PathLike[str],
    request: TextRequest,
    words: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Returns the sampler's conditions for a request; image i uses row i % N of each array.

    Args:
      method: the method that samples.
      folder: the pipeline's folder, which has the tokenizer.
      request: the texts and the noise.
      words: `{word: its token ids}` of words that the tokenizer does not know yet.

    Returns:
      `tokens` and `null_tokens` int32 `[N, L]` and, where a file of noise is given, `noise` float32 `[N, h, w, D]`.

    Raises:
      UserError: for no prompts, a file that is missing or of another shape, and a tokenizer that does not fit.
    """
    if not request.prompts:
        raise UserError("this model draws what a text says: give --prompt='a text', or --prompts=<file, one a line>.")
    if request.negative_prompt and "null_tokens" in method.ignored:
        raise UserError(f"--negative_prompt has no effect: {method.ignored['null_tokens']}; leave it out.")
    if any(request.prompts) and "tokens" in method.ignored:
        raise UserError(f"--prompt has no effect: {method.ignored['tokens']}; give --prompt='' for images of no text.")
    tokenizer, length = read_tokenizer(folder), read_pipeline(folder).length
    known = method.limits["tokens"]
    if tokenizer.vocabulary > known:
        raise UserError(
            f"the tokenizer in {folder} has {tokenizer.vocabulary} ids, but the text_encoder knows "
            f"{known}: they do not belong together."
        )
    tokenizer = tokenizer.with_words(words)
    tell_lost(tokenizer, request, length)
    tokens = tokenizer.tokenize(list(request.prompts), length)
    null = np.repeat(tokenizer.tokenize(request.negative_prompt, length), len(request.prompts), axis=0)
    found = {"tokens": tokens, "null_tokens": null}
    if request.noise:
        mend = "config.method.height and width set the images' size"
        found["noise"] = read_noise(request.noise, method.shape, request.num, mend)
    return found


def tell_lost(tokenizer: ClipTokenizer, request: TextRequest, length: int) -> None:
    """Says in one line for each text what of it the tokens do not keep: what is cut off, and which words are unknown.

    Raises:
      UserError: no word of a text is known.
    """
    several = len(request.prompts) > 1
    names = [f"prompt {i}" if several else "the prompt" for i in range(1, len(request.prompts) + 1)]
    texts = [*request.prompts, request.negative_prompt]
    lost = tokenizer.lost(texts, length)
    for name, text, found in zip([*names, "the negative prompt"], texts, lost, strict=True):
        if found.all_unknown:
            raise UserError(f"{name} is {shown(text)}, of which the model knows no word; use other words.")
    told = [found.told(name) for name, found in zip([*names, "the negative prompt"], lost, strict=True) if found]
    for sentence in told[:MOST_LINES]:
        log.warning(sentence)
    if len(told) > MOST_LINES:
        log.warning(f"all prompts: {summary(lost, 'texts')}")


def read_noise(
    path: str | os.PathLike[str], shape: tuple[int, ...], num: int, mend: str = "make it of this shape"
) -> np.ndarray:
    """Reads noise float32 `[N, h, w, D]` from an npy file; its axes may also be those of diffusers, `[N, D, h, w]`.

    Args:
      path: the file.
      shape: that of one image's noise, (h, w, D).
      num: the number of images.
      mend: a clause for the message that says what to do about another shape.

    Raises:
      UserError: for a file that is missing, damaged, of another shape, or of fewer than `num` rows.
    """
    path = user_path(path, "--noise")
    found = read_npy(path, "--noise")
    turned = (shape[-1], *shape[:-1])
    if found.shape[1:] == turned != shape:
        found = np.moveaxis(found, 1, -1)
    shapes = " or ".join(f"[N, {', '.join(map(str, sizes))}]" for sizes in dict.fromkeys((shape, turned)))
    if found.shape[1:] != shape or found.dtype.kind != "f":
        raise UserError(
            f"{path} holds {found.dtype} {found.shape}, but noise for these images is floats {shapes}; {mend}."
        )
    if not len(found):
        raise UserError(f"{path} holds noise for no image; make it for {num}.")
    if len(found) < num:
        raise UserError(
            f"{path} holds noise for {len(found)} images, but {num} are asked for: give --num={len(found)}."
        )
    if len(found) > num:
        log.info("%s holds noise for %d images, of which the first %d are used", path, len(found), num)
    if not np.isfinite(found[:num]).all():
        broken = int((~np.isfinite(found)).sum())
        raise UserError(f"{path} holds {broken} values that are NaN or infinite; make it again.")
    return found.astype(np.float32)
