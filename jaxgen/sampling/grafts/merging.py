"""Merges concepts of Custom Diffusion in closed form (Kumari et al. 2023, section 3.3).

Each concept has keys and values of cross-attention of its own. What it does to a picture it does by what they give for
the tokens of its captions: K c and V c for a token's features c. The merged weights give these values for the tokens of
every concept, and are otherwise as near as can be to the weights before tuning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Params
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.word_tokenizer import END, WordTokenizer
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.methods.tuned import words_of

Tokenizer = WordTokenizer | SubwordTokenizer

KEYS_AND_VALUES = re.compile(r"(cross|context)_attention/(key|value)/kernel$")
BATCH = 64  # texts that are encoded at a time
EXACT = 1e-3  # the largest error of a concept's values, over their size; rounding in float32 stays below 1e-4
SAME = 1e-6  # the distance of two tokens' features, over their size, below which they are one
FREE = 1e-9  # what a direction that no caption has counts beside the mean over all directions


@dataclasses.dataclass(frozen=True)
class Concept:
    """Holds what was learned of one concept.

    Attributes:
      name: what names it in messages.
      leaves: `{path of a kernel of the denoiser: float32 [in, out]}`, keys and values of cross-attention.
      words: `{new word: its rows float32 [n, D]}`.
      captions: texts that have one of the words.
    """

    name: str
    leaves: Mapping[str, np.ndarray]
    words: Mapping[str, np.ndarray]
    captions: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Merged:
    """Holds merged weights, and what became of the old ones.

    Attributes:
      leaves: `{path of a kernel of the denoiser: float32 [in, out]}`.
      tokens: how many tokens of the concepts keep their values.
      others: how many tokens the regularisation is made of.
      error: the largest error of the kept values, over their size.
      change: by how much keys and values of the other tokens change, ||(W - W_0) C_reg^T|| / ||W_0 C_reg^T||.
      alone: the same for the weights of each concept alone.
    """

    leaves: dict[str, np.ndarray]
    tokens: int
    others: int
    error: float
    change: float
    alone: tuple[float, ...]


def merge(
    method: Method, params: Params, tokenizer: Tokenizer, concepts: Sequence[Concept], regularisation: Sequence[str]
) -> Merged:
    """Merges concepts that were tuned on one model.

    Args:
      method: the method of that model, without grafts.
      params: its parameters.
      tokenizer: its tokenizer.
      concepts: the concepts.
      regularisation: captions of anything, for which keys and values should change least.

    Raises:
      UserError: two concepts have one word, a caption has no word of its concept, another part of the network was
        tuned, or there are more tokens than the weights can keep.
    """
    for concept in concepts:
        other = next((path for path in concept.leaves if not KEYS_AND_VALUES.search(path)), None)
        if other is not None:
            raise UserError(
                f"{concept.name} tuned {other!r}, and keys and values of cross-attention alone are merged: tune with "
                "where=r'cross_attention/(key|value)/'."
            )
    method, params, known = _with_words(method, params, tokenizer, concepts)
    features = [_features(method, params, known, concept.captions, concept) for concept in concepts]
    others = _features(method, params, known, regularisation)
    kept = _distinct(features, concepts)
    before = _kernels(params["denoiser"])
    found, change, size, alone, error = {}, 0.0, 0.0, np.zeros(len(concepts)), 0.0
    for path in sorted({path for concept in concepts for path in concept.leaves}):
        if path not in before:
            raise UserError(f"{concepts[0].name} tuned {path!r}, which the model does not have.")
        own = [np.asarray(concept.leaves.get(path, before[path]), np.float64) for concept in concepts]
        values = np.concatenate([c @ kernel for c, kernel in zip(features, own, strict=True)])[kept]
        wanted = np.concatenate(features)[kept]
        new = merged_kernel(before[path], wanted, values, others).astype(np.float32)
        error = max(error, float(np.abs(wanted @ new - values).max() / np.abs(values).max()))
        found[path] = new
        change += np.square(others @ (new - before[path])).sum()
        size += np.square(others @ before[path]).sum()
        alone += [np.square(others @ (kernel - before[path])).sum() for kernel in own]
    if error > EXACT:
        raise UserError(
            f"The concepts' captions have {len(kept)} tokens, and no keys and values of {others.shape[1]} features "
            f"keep what all of them gave (the error is {error:.2g}): give fewer captions, or shorter ones."
        )
    shares = (float((x / size) ** 0.5) for x in (change, *alone))
    return Merged(found, len(kept), len(others), error, next(shares), tuple(shares))


def merged_kernel(kernel: np.ndarray, features: np.ndarray, values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the weights nearest to the old ones on other features, among those that give wanted values.

        W = argmin ||W C_reg^T - W_0 C_reg^T||   where   W C^T = V                                             (Eq. 4)
        W = W_0 + v^T d,   d = C (C_reg^T C_reg)^-1,   v^T = (V - W_0 C^T) (d C^T)^-1                          (Eq. 5)

    Norms are Frobenius norms. A direction that no row of C_reg has is free: a billionth of the mean over all directions
    is added to the diagonal of C_reg^T C_reg, so that it can be inverted.

    Args:
      kernel: W_0^T `[in, out]`.
      features: C `[N, in]`, of which no row is a sum of others.
      values: V `[N, out]`.
      others: C_reg `[M, in]`.

    Returns:
      W^T float64 `[in, out]`.
    """
    kernel, features, values, others = (np.asarray(x, np.float64) for x in (kernel, features, values, others))
    gram = others.T @ others
    gram += FREE * np.trace(gram) / len(gram) * np.eye(len(gram))
    d = np.linalg.solve(gram, features.T).T
    v = np.linalg.lstsq(d @ features.T, values - features @ kernel, rcond=None)[0]
    return kernel + d.T @ v


def check_words(concepts: Sequence[Concept]) -> None:
    """Raises a UserError where two concepts have one word."""
    taken: dict[str, str] = {}
    for concept in concepts:
        for word in concept.words:
            if word in taken:
                raise UserError(
                    f"{taken[word]} and {concept.name} both teach the word {word!r}: call one of them otherwise, as in "
                    f"{concept.name}:<other>."
                )
            taken[word] = concept.name


def _kernels(denoiser: Params) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(denoiser)[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    return {path: np.asarray(leaf, np.float64) for path, leaf in named.items() if KEYS_AND_VALUES.search(path)}


def _with_words(
    method: Method, params: Params, tokenizer: Tokenizer, concepts: Sequence[Concept]
) -> tuple[Method, Params, Tokenizer]:
    """Returns the method, its parameters and its tokenizer with the new words of all concepts."""
    check_words(concepts)
    grafts, rows = {}, {}
    for number, concept in enumerate(concepts):
        for word, vectors in concept.words.items():
            name = f"{number:04}_{word}"
            grafts[name], rows[name] = TokenRows(count=len(vectors), word=word, learns=False), vectors
    if "text" not in params:
        raise UserError("The concepts have words, and the model that they were tuned on reads no texts.")
    known = tokenizer.with_words(words_of(method, grafts))
    for name in sorted(grafts):
        part = grafts[name].loaded(name, {"rows": jnp.asarray(rows[name])}, method, params, {})
        method, params = grafts[name].onto(method), grafts[name].grafted(params, part)
    return method, params, known


def _features(
    method: Method, params: Params, tokenizer: Tokenizer, texts: Sequence[str], concept: Concept | None = None
) -> np.ndarray:
    """Returns the features float64 `[N, in]` of the tokens of texts, up to the end token, without the start token.

    Of the captions of a concept they are those from its word on. The encoder of CLIP is causal, so that what stands
    before the word is the same in captions of all concepts.
    """
    tokens = np.asarray(tokenizer(list(texts)))
    first = [_first(tokenizer, text, row, concept) for text, row in zip(texts, tokens, strict=True)]
    last = [int(np.argmax(row == getattr(tokenizer, "end", END))) for row in tokens]
    context = np.concatenate([_context(method, params, tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)])
    return np.concatenate([row[a : b + 1] for row, a, b in zip(context, first, last, strict=True)]).astype(np.float64)


def _first(tokenizer: Tokenizer, text: str, row: np.ndarray, concept: Concept | None) -> int:
    """Returns the place of the first token of a text that counts."""
    if concept is None:
        return int(row[0] == getattr(tokenizer, "start", None))
    spelled = {*concept.words, *(word.lower() for word in concept.words)}
    ids = {numbers[0] for word, numbers in tokenizer.new.items() if word in spelled}
    places = [i for i, number in enumerate(row) if number in ids]
    if not places:
        raise UserError(
            f"The caption {text!r} of {concept.name} has none of its words, {', '.join(concept.words)}, or they are "
            "cut off: write captions such as 'a photo of a <word>'."
        )
    return places[0]


def _context(method: Method, params: Params, tokens: np.ndarray) -> np.ndarray:
    """Returns what the denoiser is told of tokens `[B, L]`: float32 features `[B, L, D]`."""
    if isinstance(method, DDPM):
        for name, part in method.told.all.items():
            if part.entries == ("tokens",) and "context" in part.gives:
                with jax.default_matmul_precision("highest"):
                    told = part(params[part.group(name)], {"tokens": jnp.asarray(tokens)}, None, method.shape)
                return np.asarray(told["context"], np.float32)
    raise UserError(f"The method {type(method).__name__} tells its denoiser no features of a text's tokens.")


def _distinct(features: Sequence[np.ndarray], concepts: Sequence[Concept]) -> list[int]:
    """Returns the rows of all features that are not the same as an earlier one.

    Raises:
      UserError: two concepts have a token in common.
    """
    rows, owner = np.concatenate(features), np.repeat(np.arange(len(features)), [len(x) for x in features])
    kept: list[int] = []
    for i, row in enumerate(rows):
        distance = np.linalg.norm(rows[kept] - row, axis=1) if kept else np.ones(0)
        near = [kept[j] for j in np.flatnonzero(distance <= SAME * np.linalg.norm(row))]
        if not near:
            kept.append(i)
        elif owner[near[0]] != owner[i]:
            raise UserError(
                f"{concepts[owner[near[0]]].name} and {concepts[owner[i]].name} have a token of the same features "
                "in their captions, so that both cannot keep what they give for it: name different words or captions."
            )
    return kept
