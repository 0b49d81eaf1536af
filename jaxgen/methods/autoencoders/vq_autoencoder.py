"""Holds a discrete autoencoder: an image is a grid of codes, the first stage of an autoregressive transformer.

It is the VQ-VAE of van den Oord et al. (2017) with a codebook that follows the encoder as a running mean (their
Appendix A.1; Razavi et al. 2019); with a discriminator it is the VQGAN of Esser et al. (2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.first_stage import Bottleneck, FirstStage
from jaxgen.methods.base import Model
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.variational.codebook import Codebook, counts, nearest, perplexity, straight_through


@dataclasses.dataclass(frozen=True)
class VQAutoencoder(FirstStage):
    """Quantises each of the encoder's vectors by its nearest code, and adds the commitment to the loss.

    For vectors z and their codes e, the penalty is `commitment` times the mean over values of |z - sg(e)|^2, times the
    number of an image's values, as the other terms are; the gradient of the reconstruction passes through e to z
    unchanged. `network` has `encode(x) -> z`, `decode(z)`, `latent_channels` and `codes`, as `autoencoder_vq`.

    The memory `autoencoder` holds the codebook (`codes`, `count`, `total`), which learns without gradients and goes
    with the weights to the second stage. No average of the parameters is kept: a codebook belongs to the encoder whose
    vectors it has followed, and not to an average of it.

    In training, `perplexity` is that of the running choice of codes, and `revived` the number of codes that began
    again. Scores beside those of `FirstStage`: `commitment`; over the whole data set `perplexity`, and `codes_used`,
    the number of codes that any image has.
    """

    commitment: float = 0.25
    kept: float = 0.99  # share of the codebook's running sums that is kept at each step
    # A code that is chosen less often than this share of the mean of all codes begins again at a vector of the batch;
    # 0 lets codes die.
    revive_below: float = 0.03

    network_needs = {"network": ("encode", "decode", "latent_channels", "codes")}
    encodes = "codes"
    _not_negative = (*FirstStage._not_negative, "commitment", "revive_below")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.kept < 1 or self.revive_below >= 1:
            raise UserError("config.method.kept and revive_below are shares: above 0 and below 1, and below 1.")

    @property
    def ema_groups(self) -> tuple[str, ...]:
        return ()

    def fresh_memory(self, params: Tree, image: Float[Array, "B H W C"], key: Array) -> dict[str, Array]:
        vectors = self._vectors(params, image).reshape(-1, self.network.latent_channels)
        return dict(vars(Codebook.of(vectors, self.network.codes, key)))

    def bottleneck(self, params: Tree, memory: Tree, image: Float[Array, "B H W C"], key: Array) -> Bottleneck:
        book, z = Codebook(**memory), self._vectors(params, image)
        chosen = nearest(book.codes, jax.lax.stop_gradient(z))
        quantised = book.codes[chosen]
        commitment = jnp.square(z - quantised).mean()
        rows = jax.lax.stop_gradient(z).reshape(-1, z.shape[-1])
        after, revived = book.updated(rows, chosen.reshape(-1), self.kept), jnp.zeros(())
        if self.revive_below:
            after, revived = after.revived(rows, key, self.revive_below)
        metrics = {"commitment": commitment, "perplexity": perplexity(after.count), "revived": revived}
        penalty = self.commitment * image[0].size * commitment
        return Bottleneck(straight_through(z, quantised), penalty, metrics, dict(vars(after)))

    def most_likely(self, params: Tree, memory: Tree, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        return memory["codes"][nearest(memory["codes"], self._vectors(params, image))]

    def encode_images(self, model: Model, image: Float[Array, "B H W C"]) -> Int[Array, "B h w"]:
        """Returns the number of each patch's code."""
        return nearest(model.memory["autoencoder"]["codes"], self._vectors(model.params["autoencoder"], image))

    def _vectors(self, params: Tree, image: Array) -> Array:
        return apply_params(self.network, params, image, method="encode")

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        z = self._vectors(model.params["autoencoder"], batch["image"])
        codebook = model.memory["autoencoder"]["codes"]
        chosen = nearest(codebook, z)
        gap = jnp.square(z - codebook[chosen]).mean(axis=(1, 2, 3))
        found = {"commitment": gap, "code_counts": counts(chosen, len(codebook))}
        return super().scores(model, keys, batch) | found

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        total = scores["code_counts"].sum(axis=0)
        means = super().summary({name: values for name, values in scores.items() if name != "code_counts"})
        used = {"perplexity": float(perplexity(jnp.asarray(total))), "codes_used": float((total > 0).sum())}
        return {**means, **used}

    def better(self, score: str) -> str | None:
        return "higher" if score in ("perplexity", "codes_used") else super().better(score)
