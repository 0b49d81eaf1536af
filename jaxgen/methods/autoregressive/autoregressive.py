"""Draws an image token by token: a causal transformer over a text and the codes of an image (DALL-E, Ramesh et al.
2021).

The codes are those of a frozen discrete autoencoder (`jaxgen.methods.autoencoders.vq_autoencoder`). A sequence is a
token that begins it, the text's tokens, and the codes row by row; what comes next is predicted everywhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.codecs.codes import Codes
from jaxgen.diffusion.guidance import Guidance
from jaxgen.diffusion.guidance.contrast import ClassifierFree
from jaxgen.errors import UserError
from jaxgen.methods.autoregressive.token_sampler import TokenSampler
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn, check_loaded
from jaxgen.networks.layers.stateless import apply_params, init_params

LN2 = math.log(2)


@dataclasses.dataclass(frozen=True)
class Autoregressive(Method):
    """It has one turn and the group `transformer`; the group `autoencoder`, with its codebook, is frozen.

    The loss is text_weight * (cross-entropy of a text's tokens) + (1 - text_weight) * (that of an image's codes), each
    a mean over tokens in nats (Ramesh et al. 2021, section 2.2). Padding is read and not counted. Where a batch has
    `codes` [B, h, w], written by `python -m jaxgen.sampling.latents`, no image is encoded.

    Images are drawn by `config.sampler` (temperature, top_k, top_p), and with `config.guidance` of the name
    `classifier_free` from logits (1 - scale) * unconditional + scale * conditional. Beside `image`, samples have
    `codes`.

    Scores of held-out images: `bits_per_code`, the cross-entropy of a code in bits, under the image's text; under the
    text of another image `bits_per_code_other_text`, which is higher by what the text says of the image; and
    `bits_per_word` of the text. They are likelihoods of codes, and not of pixels.

    Attributes:
      network: `tokens [B, L] -> logits [B, L, vocabulary]` with a cache, as `causal_transformer`, cloned with the
        `vocabulary` and `length` of the sequences.
      autoencoder: the network of the first stage, equal to that run's `method.network`; its weights and codebook are
        `config.init_from.autoencoder`.
      image_shape: `(H, W, C)`; from the config's data.
      vocabulary: the number of ids of the tokenizer; 0 where the data have no texts.
      length: the number of tokens of a text.
      sampler: how a token is drawn; `config.sampler`.
      guidance: classifier-free guidance, which needs `text_dropout`; `config.guidance`.
      text_dropout: share of training examples whose text is replaced by the empty one. Its tokens are not counted.
      text_weight: weight of the text's cross-entropy; 1/8 in the paper.
      empty: ids of the empty text; it is filled up with `pad`.
      pad: the id of the tokens behind a text's end.
      cached: whether every batch must have `codes`, so that a plan, which sees no data, knows of them.
      decode_batch: number of images that are decoded at a time; 0 for the whole batch.
    """

    network: nn.Module
    autoencoder: nn.Module
    image_shape: tuple[int, int, int]
    vocabulary: int = 0
    length: int = 0
    sampler: TokenSampler = TokenSampler()
    guidance: Guidance | None = None
    text_dropout: float = 0.0
    text_weight: float = 1 / 8
    empty: tuple[int, ...] = (1,)
    pad: int = 0
    cached: bool = False
    decode_batch: int = 0

    required_groups = ("autoencoder",)
    panel_inputs = ("image",)
    network_needs = {
        "network": ("extend", "empty", "vocabulary", "length"),
        "autoencoder": ("encode", "decode", "factor", "latent_channels", "codes"),
    }

    def __post_init__(self) -> None:
        for name in ("text_dropout", "text_weight"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it is a share below 1.")
        if (self.vocabulary > 0) != (self.length > 0):
            raise UserError(
                "Texts have a vocabulary and a length: set both config.method.vocabulary and config.method.length to "
                "those of the data's tokenizer, or neither."
            )
        if self.text_dropout and not self.vocabulary:
            raise UserError("config.method.text_dropout needs texts: set config.method.vocabulary and length.")
        words = (*self.empty, self.pad)
        if self.vocabulary and not (all(0 <= i < self.vocabulary for i in words) and len(self.empty) <= self.length):
            raise UserError(
                f"The empty text {self.empty}, filled up with {self.pad}, is no text of {self.length} ids in [0, "
                f"{self.vocabulary}): set config.method.empty and pad to those of the tokenizer."
            )
        self._check_guidance()

    def _check_guidance(self) -> None:
        if self.guidance is None:
            return
        if not isinstance(self.guidance, ClassifierFree) or not self.guidance.plain or self.guidance.threshold:
            raise UserError(
                "Tokens are guided by config.guidance=section(name='classifier_free', scale=...) alone, without "
                "interval, rescale and threshold, which are for noise levels and pixels."
            )
        if self.guidance.scale != 1 and not self.text_dropout:
            raise UserError(
                "Classifier-free guidance needs a model that was trained without its text too: set "
                "config.method.text_dropout, such as 0.1, and train."
            )

    @property
    def coding(self) -> Codes:
        """Returns what turns images into codes and back."""
        return Codes(self.autoencoder, self.cached, self.decode_batch)

    @property
    def places(self) -> int:
        """Returns the number of codes of an image."""
        return math.prod(self.coding.grid(self.image_shape))

    @property
    def transformer(self) -> nn.Module:
        """Returns the network for sequences of this text and image: ids of words, then of codes, then the beginning."""
        vocabulary = self.vocabulary + self.coding.size + 1
        return self.network.clone(vocabulary=vocabulary, length=self.length + self.places)

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("tokens",) if self.vocabulary else ()

    @property
    def ignored(self) -> Mapping[str, str]:
        if self.guidance is None or "condition" in self.guidance.reads:
            return {}
        return {"tokens": self.guidance.unread}

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        text = {"tokens": ((self.length,), np.int32)} if self.vocabulary else {}
        return {**text, **self.coding.entries(self.image_shape)}

    @property
    def limits(self) -> Mapping[str, int]:
        text = {"tokens": self.vocabulary, "null_tokens": self.vocabulary} if self.vocabulary else {}
        return {**text, "codes": self.coding.size}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        group = self.coding.group
        return {group: self.coding.init(key, self.image_shape)}, {group: self.coding.fresh_memory()}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        group = self.coding.group
        if group in given:
            fresh = jax.eval_shape(lambda key: self.coding.init(key, self.image_shape), key)
            check_loaded(group, given[group], fresh)
        self.coding.check(memory.get(group))
        self._text(batch)  # refuses texts of another length
        sequence = jnp.zeros((1, self.length + self.places), jnp.int32)
        return {"transformer": init_params(self.transformer, key, sequence)}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("predict", ("transformer",), self.loss),)

    # training

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_text, of_dropout = jax.random.split(key)
        self.coding.check_cached(batch)
        codes, tokens = self.codes(params, batch, state.memory), self._text(batch)
        counted = tokens != self.pad
        if self.text_dropout:
            dropped = jax.random.bernoulli(of_text, self.text_dropout, (len(tokens), 1))
            tokens, counted = jnp.where(dropped, self._null(batch, tokens), tokens), counted & ~dropped
        rngs = {"dropout": of_dropout}
        of_words, of_codes = self.errors(params, tokens, codes, train=True, rngs=rngs)
        image, text = of_codes.mean(), (of_words * counted).sum() / jnp.maximum(counted.sum(), 1)
        weight = self.text_weight if self.vocabulary else 0.0
        metrics = {"code_loss": image} | ({"text_loss": text} if self.vocabulary else {})
        return weight * text + (1 - weight) * image, (metrics, {})

    def codes(self, params: Params, batch: Batch, memory: Memory) -> Int[Array, "B N"]:
        """Returns the codes of a batch's images, row by row."""
        found = self.coding.encode(params["autoencoder"], batch, memory["autoencoder"])
        return found.reshape(len(found), -1)

    def errors(
        self, params: Params, tokens: Int[Array, "B L"], codes: Int[Array, "B N"], **options: object
    ) -> tuple[Float[Array, "B L"], Float[Array, "B N"]]:
        """Returns the cross-entropy, in nats, of each of a text's tokens and of each code, given those before it.

        Options go to the network. Words compete with words alone, and codes with codes.
        """
        of_words, of_codes = self.logits(params, tokens, codes, **options)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return cross_entropy(of_words, tokens), cross_entropy(of_codes, codes)

    def logits(
        self, params: Params, tokens: Int[Array, "B L"], codes: Int[Array, "B N"], **options: object
    ) -> tuple[Float[Array, "B L V"], Float[Array, "B N K"]]:
        """Returns the logits of each of a text's tokens and of each code, given those before it, in one call."""
        sequence = jnp.concatenate([self._beginning(tokens), self.vocabulary + codes[:, :-1]], axis=1)
        found = apply_params(self.transformer, params["transformer"], sequence, **options)
        return found[:, : self.length, : self.vocabulary], self._of_codes(found[:, self.length :])

    def _beginning(self, tokens: Array) -> Array:
        """Returns what a sequence begins with: its own token, and the text's."""
        begin = jnp.full((len(tokens), 1), self.vocabulary + self.coding.size, jnp.int32)
        return jnp.concatenate([begin, tokens], axis=1)

    def _of_codes(self, logits: Array) -> Array:
        return logits[..., self.vocabulary : self.vocabulary + self.coding.size]

    def _text(self, batch: Batch) -> Int[Array, "B L"]:
        """Returns a batch's tokens. Raises a UserError for texts of another length."""
        if not self.vocabulary:
            return jnp.zeros((len(next(iter(batch.values()))), 0), jnp.int32)
        tokens = batch["tokens"]
        if tokens.shape[1] != self.length:
            raise UserError(
                f"The data's texts have {tokens.shape[1]} tokens, and config.method.length is {self.length}: set it to "
                f"{tokens.shape[1]}, or choose other data."
            )
        return tokens

    def _null(self, batch: Batch, tokens: Array) -> Array:
        """Returns the text that stands for none, or that guidance leads away from."""
        if "null_tokens" in batch:
            return batch["null_tokens"]
        row = [*self.empty, *[self.pad] * (self.length - len(self.empty))][: self.length]
        return jnp.broadcast_to(jnp.asarray(row, tokens.dtype), tokens.shape)

    # sampling

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Array]:
        codes = self.drawn(model.params, batch, keys)
        return {"image": self.decode(model, codes), "codes": codes.reshape(-1, *self.coding.grid(self.image_shape))}

    def decode(self, model: Model, codes: Int[Array, "B N"]) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of codes."""
        grid = codes.reshape(-1, *self.coding.grid(self.image_shape))
        return self.coding.decode(model.params["autoencoder"], grid, model.memory["autoencoder"])

    def drawn(
        self,
        params: Params,
        batch: Batch,
        keys: Key[Array, " B"],
        begun: Int[Array, "B N"] | None = None,
        kept: int = 0,
    ) -> Int[Array, "B N"]:
        """Returns codes drawn one after the other for a batch's texts, in one scan with cached keys and values.

        Args:
          batch: with `tokens`, and with `null_tokens` where guidance leads away from a text.
          keys: one for each image; code i is drawn by `fold_in(key, i)`.
          begun: codes of which the first `kept` are taken as they are; the rest is drawn to go with them.
        """
        tokens = self._text({**batch, "keys": keys})
        scale = 1.0 if self.guidance is None else self.guidance.scale  # type: ignore[attr-defined]  # ClassifierFree
        if scale == 0:
            tokens = self._null(batch, tokens)
        doubled = scale not in (0, 1)
        if doubled:  # both texts of an image side by side, on the device that holds the image
            tokens = jnp.stack([tokens, self._null(batch, tokens)], axis=1).reshape(-1, self.length)
        network, own = self.transformer, params["transformer"]

        def pick(logits: Array, place: Array | int) -> Array:
            """Returns the code of a place, of the logits that the token before it gave."""
            logits = self._of_codes(logits[:, -1])
            if doubled:
                wanted, null = logits[::2], logits[1::2]
                logits = (1 - scale) * null + scale * wanted
            code = self.sampler(logits, jax.vmap(lambda key: jax.random.fold_in(key, place))(keys))
            return code if begun is None else jnp.where(place < kept, begun[:, place], code)

        def step(carry: tuple[Array, tuple], place: Array) -> tuple[tuple[Array, tuple], Array]:
            code, past = carry
            ids = self.vocabulary + (jnp.repeat(code, 2) if doubled else code)[:, None]
            logits, past = apply_params(network, own, ids, past, self.length + place, method="extend")
            code = pick(logits, place)
            return (code, past), code

        start = self._beginning(tokens)
        logits, past = apply_params(network, own, start, network.empty(len(start)), 0, method="extend")
        first = pick(logits, 0)
        _, rest = jax.lax.scan(step, (first, past), jnp.arange(1, self.places))
        return jnp.concatenate([first[:, None], rest.T], axis=1)

    # on held-out images

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        codes, tokens = self.codes(model.params, batch, model.memory), self._text(batch)
        of_words, of_codes = self.errors(model.params, tokens, codes)
        found = {"bits_per_code": of_codes.mean(axis=1) / LN2}
        if not self.vocabulary:
            return found
        counted = tokens != self.pad
        of_text = (of_words * counted).sum(axis=1) / jnp.maximum(counted.sum(axis=1), 1)
        _, other = self.errors(model.params, jnp.roll(tokens, 1, axis=0), codes)
        return {**found, "bits_per_code_other_text": other.mean(axis=1) / LN2, "bits_per_word": of_text / LN2}

    def better(self, score: str) -> str | None:
        return None if score == "bits_per_code_other_text" else super().better(score)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `completions`, with held-out images, each a row of four: the image, the image of its codes, its upper
        half continued, and a new image of its text.
        """
        if "image" not in batch:
            return {}
        codes, columns = self.codes(model.params, batch, model.memory), [batch["image"]]
        kept = self.places // 2
        continued = self.drawn(model.params, batch, keys, codes, kept)
        columns += [self.decode(model, x) for x in (codes, continued, self.drawn(model.params, batch, keys))]
        return {"completions": jnp.concatenate(columns, axis=2)}
