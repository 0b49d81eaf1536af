"""Methods small enough to train in a second, each hard on the engine in its own way; named in configs as
`tiny_methods:<Name>`."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config import defaults, section
from jaxgen.methods.base import Method, Turn

PIXELS = 64
DIARY = 64


def tiny_config(name: str, /, **options: Any):
    """A config for a method of this file on 8x8 digits; `options` are the method's."""
    config = defaults()
    config.method = section(name=f"tiny_methods:{name}", **options)
    config.data.update(source="digits", resolution=8, channels=1)
    config.optimizer.update(name="adam", learning_rate=1e-3)
    config.train.update(
        batch_size=8,
        total_images=64,
        log_every_images=16,
        checkpoint_every_images=0,
        sample_every_images=0,
        ema_decay=0.9,
        tensorboard=False,
    )
    config.evaluate.batch_size = 8
    return config


def gan_config():
    """A GAN on digits with networks of one hidden layer."""
    config = tiny_config("Plain")
    config.method = section(
        name="gan",
        generator=section(name="mlp_generator", z_dim=4, widths=(8,)),
        discriminator=section(name="mlp_discriminator", widths=(8,)),
    )
    return config


def ddpm_config(**network: Any):
    """A DDPM with a U-Net of a few thousand parameters, and everything random switched on."""
    config = tiny_config("Plain")
    options = dict(
        out_channels=1,
        channels=8,
        channel_multipliers=(1,),
        blocks=1,
        attention_resolutions=(),
        middle_attention=False,
        norm_groups=4,
        dropout=0.2,
    )
    config.method = section(
        name="ddpm",
        network=section(name="unet", **{**options, **network}),
        schedule=section(name="cosine", steps=100),
        prediction_type="v",
    )
    config.sampler = section(name="ddim", steps=3)
    config.data.update(flip=True, crop=1)
    config.optimizer.update(warmup_images=32, decay="cosine", clip_norm=1.0)
    return config


def remember(diary: jax.Array, value: Any) -> jax.Array:
    """A ring of the last rows, the newest first."""
    return jnp.concatenate([jnp.asarray(value, jnp.float32).reshape(1, -1), diary[:-1]])


def total(tree: Any) -> jax.Array:
    """A number that changes with any parameter."""
    leaves = jax.tree.leaves(tree)
    return sum((jnp.sin(jnp.arange(x.size) + 1.0) * x.reshape(-1)).sum() for x in leaves)


def flat(image: jax.Array) -> jax.Array:
    return image.reshape(image.shape[0], -1)


class MLP(nn.Module):
    widths: tuple[int, ...]
    norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i, width in enumerate(self.widths[:-1]):
            x = nn.Dense(width, use_bias=not self.norm, name=f"dense_{i}")(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm_{i}")(x)
            x = nn.tanh(x)
        return nn.Dense(self.widths[-1], name="out")(x)


@dataclasses.dataclass(frozen=True)
class Plain(Method):
    """An autoencoder with one turn. `diary` remembers a random number and the batch's mean of each update.

    Attributes:
      noise: of the input; 0 makes the loss deterministic.
      fail_at: steps whose loss is NaN.
    """

    noise: float = 0.0
    fail_at: tuple[int, ...] = ()
    diary: bool = True

    def net(self) -> MLP:
        return MLP((12, PIXELS))

    def init(self, key, batch, stage, given, params, memory):
        memory = {"diary": jnp.zeros((DIARY, 2))} if self.diary else {}
        return {"net": self.net().init(key, flat(batch["image"]))["params"]}, memory

    def turns(self, stage):
        return (Turn("fit", ("net",), self.loss),)

    def loss(self, params, batch, key, state):
        target = flat(batch["image"])
        x = target + self.noise * jax.random.normal(key, target.shape) if self.noise else target
        value = ((self.net().apply({"params": params["net"]}, x) - target) ** 2).mean()
        value = jnp.where(jnp.isin(state.step, np.array(self.fail_at or (-1,))), jnp.nan, value)
        entry = [jax.random.uniform(key), batch["image"].mean()]
        return value, ({}, {"diary": remember(state.memory["diary"], entry)} if self.diary else {})

    def sample(self, model, keys, batch):
        x = jax.vmap(lambda key: jax.random.normal(key, (PIXELS,)))(keys)
        return jnp.tanh(self.net().apply({"params": model.params["net"]}, x)).reshape(-1, 8, 8, 1)


@dataclasses.dataclass(frozen=True)
class Holed(Plain):
    """As `Plain`, with samples of one grey each, by their labels: those of `holes` are NaN or infinite in one value."""

    holes: tuple[int, ...] = ()
    conditions = ("label",)

    def sample(self, model, keys, batch):
        label = batch["label"]
        images = jnp.broadcast_to((label / 5 - 1)[:, None, None, None], (len(label), 8, 8, 1))
        broken = jnp.isin(label, np.array(self.holes or (-1,)))
        return images.at[:, 2, 3, 0].set(jnp.where(broken, jnp.where(label % 2, jnp.nan, jnp.inf), images[:, 2, 3, 0]))

    def panels(self, model, keys, batch):
        return {"greys": self.sample(model, keys, batch)}


@dataclasses.dataclass(frozen=True)
class TwoPlayers(Method):
    """A GAN with BatchNorm: discriminator steps, each on a fresh batch, then a generator step.

    Batch statistics are memory, `generator` and `discriminator`; the discriminator sees real and fake images apart.
    `diary` remembers, of each update: turn (0 discriminator, 1 generator), the batch's mean, what the parameters of
    discriminator and generator add up to, and a random number.

    Attributes:
      fail_turn, fail_from, fail_until: the turn whose loss is NaN, and at which steps.
    """

    repeats: int = 3
    fail_turn: str = ""
    fail_from: int = 0
    fail_until: int = 1_000_000

    def generator(self) -> MLP:
        return MLP((16, PIXELS), norm=True)

    def discriminator(self) -> MLP:
        return MLP((16, 1), norm=True)

    def init(self, key, batch, stage, given, params, memory):
        of_generator, of_discriminator = jax.random.split(key)
        generator = self.generator().init(of_generator, jnp.zeros((2, 4)))
        discriminator = self.discriminator().init(of_discriminator, flat(batch["image"]))
        params = {"generator": generator["params"], "discriminator": discriminator["params"]}
        statistics = {"generator": generator["batch_stats"], "discriminator": discriminator["batch_stats"]}
        return params, {**statistics, "diary": jnp.zeros((DIARY, 5))}

    def turns(self, stage):
        return (
            Turn("discriminator", ("discriminator",), self.discriminator_loss, repeats=self.repeats),
            Turn("generator", ("generator",), self.generator_loss),
        )

    def _apply(self, name, params, memory, x):
        variables = {"params": params[name], "batch_stats": memory[name]}
        y, changed = getattr(self, name)().apply(variables, x, train=True, mutable=["batch_stats"])
        return y, {**memory, name: changed["batch_stats"]}

    def _entry(self, turn, params, batch, key, state):
        totals = [total(params["discriminator"]), total(params["generator"])]
        return remember(state.memory["diary"], [turn, batch["image"].mean(), *totals, jax.random.uniform(key)])

    def _fail(self, name, state, value):
        now = (state.step >= self.fail_from) & (state.step < self.fail_until)
        return jnp.where(now, jnp.nan, value) if name == self.fail_turn else value

    def discriminator_loss(self, params, batch, key, state):
        real = flat(batch["image"])
        fake, _ = self._apply("generator", params, state.memory, jax.random.normal(key, (len(real), 4)))
        on_real, memory = self._apply("discriminator", params, state.memory, real)
        on_fake, memory = self._apply("discriminator", params, memory, fake)
        value = nn.softplus(-on_real).mean() + nn.softplus(on_fake).mean()
        diary = self._entry(0, params, batch, key, state)
        return self._fail("discriminator", state, value), (
            {},
            {"discriminator": memory["discriminator"], "diary": diary},
        )

    def generator_loss(self, params, batch, key, state):
        z = jax.random.normal(key, (len(batch["image"]), 4))
        fake, memory = self._apply("generator", params, state.memory, z)
        on_fake, _ = self._apply("discriminator", params, memory, fake)
        value = nn.softplus(-on_fake).mean()
        diary = self._entry(1, params, batch, key, state)
        return self._fail("generator", state, value), ({}, {"generator": memory["generator"], "diary": diary})


@dataclasses.dataclass(frozen=True)
class Chains(Plain):
    """As `Plain`, with memory of one row for each image of a batch.

    Attributes:
      rows: their number; 0 makes as many as the batch of `init` has images.
      kept: how many of them a loss returns; 0 returns all.
    """

    rows: int = 0
    kept: int = 0

    def init(self, key, batch, stage, given, params, memory):
        params, _ = super().init(key, batch, stage, given, params, memory)
        return params, {"chains": {"value": jnp.zeros((self.rows or len(batch["image"]), 2))}, "count": jnp.zeros(())}

    def loss(self, params, batch, key, state):
        chains = state.memory["chains"]["value"]
        chains = chains[: self.kept] if self.kept else chains + batch["image"].mean(axis=(1, 2, 3))[:, None]
        return jnp.square(params["net"]["out"]["bias"]).sum(), ({}, {"chains": {"value": chains}})


@dataclasses.dataclass(frozen=True)
class Lazy(Plain):
    """As `Plain`, with a second turn on the same group at every `every`-th step; `fail` are steps where it is NaN."""

    every: int = 4
    fail: tuple[int, ...] = ()

    def turns(self, stage):
        return (*super().turns(stage), Turn("penalty", ("net",), self.penalty, every=self.every))

    def penalty(self, params, batch, key, state):
        value = sum((x**2).sum() for x in jax.tree.leaves(params["net"])) + 0 * batch["image"].mean()
        value = jnp.where(jnp.isin(state.step, np.array(self.fail or (-1,))), jnp.nan, value)
        return value, ({"step": state.step}, {"diary": remember(state.memory["diary"], [-1, state.images])})


@dataclasses.dataclass(frozen=True)
class Shelf(Plain):
    """As `Plain`, with a large group that is kept and that no turn trains, as the finished scales of SinGAN."""

    size: int = 64

    def init(self, key, batch, stage, given, params, memory):
        params, memory = super().init(key, batch, stage, given, params, memory)
        return {**params, "shelf": {"w": jax.random.normal(key, (self.size,))}}, memory


@dataclasses.dataclass(frozen=True)
class Growing(Method):
    """An autoencoder whose middle grows at `boundary` images, where a second group joins it.

    `dense_1`'s output and `out` keep their shapes; `dense_0`'s output grows. Memory grows too.
    """

    boundary: int = 32
    noise: float = 0.1

    @property
    def stages(self):
        return ((0, 0), (self.boundary, 1))

    def net(self, stage) -> MLP:
        return MLP((6 + 4 * stage, 10, PIXELS))

    def init(self, key, batch, stage, given, params, memory):
        x = flat(batch["image"])
        fresh = self.net(stage).init(key, x)["params"]
        if not params:
            return {"net": fresh}, {"seen": jnp.zeros(3), "kept": jnp.zeros(())}
        grown = jax.tree.map(lambda new, old: old if new.shape == old.shape else new, fresh, params["net"])
        extra = nn.Dense(PIXELS).init(key, x)["params"]
        return {"net": grown, "extra": extra}, {"seen": jnp.zeros(5), "kept": memory["kept"]}

    def turns(self, stage):
        groups = ("net", "extra") if stage else ("net",)
        return (Turn("fit", groups, lambda *arguments: self.loss(stage, *arguments)),)

    def loss(self, stage, params, batch, key, state):
        target = flat(batch["image"])
        x = target + self.noise * jax.random.normal(key, target.shape)
        y = self.net(stage).apply({"params": params["net"]}, x)
        if stage:
            y = y + nn.Dense(PIXELS).apply({"params": params["extra"]}, x)
        seen = jnp.roll(state.memory["seen"], 1).at[0].set(target.mean())
        return ((y - target) ** 2).mean(), ({}, {"seen": seen, "kept": state.memory["kept"] + 1})


ROWS = 2000


@dataclasses.dataclass(frozen=True)
class Table(Method):
    """Learns a table of `ROWS` pictures, one for each class; all but ten stay as they began. Has memory of its own."""

    rows: int = ROWS

    def init(self, key, batch, stage, given, params, memory):
        table = {"rows": 0.1 * jax.random.normal(key, (self.rows, PIXELS))}
        return {"table": table}, {"table": {"updates": jnp.zeros(())}}

    def turns(self, stage):
        return (Turn("fit", ("table",), self.loss),)

    def loss(self, params, batch, key, state):
        value = ((params["table"]["rows"][batch["label"]] - flat(batch["image"])) ** 2).mean()
        return value, ({}, {"table": {"updates": state.memory["table"]["updates"] + 1}})


@dataclasses.dataclass(frozen=True)
class OneRow(Table):
    """Learns one row of a given table and nothing else: the part is a group, grafted at use."""

    row: int = 3
    required_groups = ("table",)

    def init(self, key, batch, stage, given, params, memory):
        start = given["table"]["rows"].mean(axis=0) if "table" in given else jnp.zeros(PIXELS)
        return {"row": {"value": start}}, {}

    def turns(self, stage):
        return (Turn("fit", ("row",), self.row_loss),)

    def graft(self, params):
        return {"table": {"rows": params["table"]["rows"].at[self.row].set(params["row"]["value"])}}

    def row_loss(self, params, batch, key, state):
        metrics = {"frozen": total(params["table"]), "updates": state.memory["table"]["updates"]}
        rows = self.graft(params)["table"]["rows"]
        return ((rows[batch["label"]] - flat(batch["image"])) ** 2).mean(), (metrics, {})


@dataclasses.dataclass(frozen=True)
class Borrower(Method):
    """Begins as a copy of half of a given network, which itself stays frozen (as ControlNet does)."""

    required_groups = ("net",)

    def init(self, key, batch, stage, given, params, memory):
        return {"half": given["net"]["dense_0"], "again": given["net"]["dense_0"]}, {"first": given["net"]["out"]}

    def turns(self, stage):
        return (Turn("fit", ("half", "again"), self.loss),)

    def loss(self, params, batch, key, state):
        return sum((x**2).sum() for g in ("half", "again") for x in jax.tree.leaves(params[g])), ({}, {})


@dataclasses.dataclass(frozen=True)
class TwoDomains(Method):
    """From one domain to the other: a batch with two named sources."""

    def init(self, key, batch, stage, given, params, memory):
        return {"net": MLP((8, PIXELS)).init(key, flat(batch["image"]))["params"]}, {"means": jnp.zeros((DIARY, 2))}

    def turns(self, stage):
        return (Turn("fit", ("net",), self.loss),)

    def loss(self, params, batch, key, state):
        y = MLP((8, PIXELS)).apply({"params": params["net"]}, flat(batch["image"]))
        means = remember(state.memory["means"], [batch["image"].mean(), batch["other_image"].mean()])
        return ((y.mean(0) - flat(batch["other_image"]).mean(0)) ** 2).mean(), ({}, {"means": means})


@dataclasses.dataclass(frozen=True)
class Restorer(Method):
    """Predicts what a hole took from an image, and keeps what is known; it reads a picture and a mask."""

    image_shape: tuple[int, int, int]
    conditions = ("condition", "mask")
    panel_inputs = ("image",)

    def init(self, key, batch, stage, given, params, memory):
        seen = self.seen(batch)
        return {"network": nn.Conv(self.image_shape[-1], (3, 3)).init(key, seen)["params"]}, {}

    def seen(self, batch):
        return jnp.concatenate([batch["condition"], batch["mask"][..., None].astype(jnp.float32)], axis=-1)

    def restored(self, params, batch):
        drawn = nn.Conv(self.image_shape[-1], (3, 3)).apply({"params": params["network"]}, self.seen(batch))
        return jnp.where(batch["mask"][..., None] == 1, drawn, batch["condition"])

    def turns(self, stage):
        return (Turn("restore", ("network",), self.loss),)

    def loss(self, params, batch, key, state):
        return jnp.square(self.restored(params, batch) - batch["image"]).mean(), ({}, {})

    def sample(self, model, keys, batch):
        assert "image" not in batch, "a sampler does not see the truth"
        return self.restored(model.params, batch)

    def panels(self, model, keys, batch):
        return {"restored": jnp.concatenate([batch["image"], batch["condition"], self.restored(model.params, batch)])}

    def scores(self, model, keys, batch):
        return {"error": jnp.square(self.restored(model.params, batch) - batch["image"]).mean((1, 2, 3))}


@dataclasses.dataclass(frozen=True)
class Giver(Plain):
    """As `Plain`, but samples are of a kind that the config names, with a further array beside them."""

    kind: str = "image"
    wrong: str = ""  # what is wrong with them: "shape", "type", "name", "rows", "kept"
    conditions = ("label",)

    @property
    def gives(self):
        return self.kind

    def sample(self, model, keys, batch):
        images = Plain.sample(self, model, keys, batch)
        x, count = images.reshape(-1, PIXELS), len(images)
        main = {
            "image": images,
            "video": jnp.stack([images, images * 0.5, -images], axis=1),
            "embedding": x[:, :6],
            "tokens": jnp.argsort(x[:, :5], axis=1),
        }[self.kind]
        if self.wrong == "shape":
            main = main[..., None]
        if self.wrong == "type":
            main = main.astype(jnp.float16) > 0
        more = {"latent": x[: count - (self.wrong == "rows"), :4], "mask": (images[..., 0] > 0).astype(jnp.int32)}
        if self.wrong == "kept":
            more["labels"] = more.pop("latent")
        return {"picture" if self.wrong == "name" else self.kind: main, **more}


@dataclasses.dataclass(frozen=True)
class Translator(Method):
    """Makes an image of the picture `reads`, pixel by pixel; both may have any number of channels."""

    image_shape: tuple[int, int, int]
    reads: str = "condition"
    panel_inputs = ("image",)

    @property
    def conditions(self):
        return (self.reads,)

    def net(self):
        return nn.Dense(self.image_shape[-1])

    def init(self, key, batch, stage, given, params, memory):
        return {"network": self.net().init(key, batch[self.reads])["params"]}, {}

    def translated(self, params, batch):
        return self.net().apply({"params": params["network"]}, batch[self.reads])

    def turns(self, stage):
        return (Turn("translate", ("network",), self.loss),)

    def loss(self, params, batch, key, state):
        return jnp.square(self.translated(params, batch) - batch["image"]).mean(), ({}, {})

    def sample(self, model, keys, batch):
        return self.translated(model.params, batch)

    def scores(self, model, keys, batch):
        return {"error": jnp.square(self.translated(model.params, batch) - batch["image"]).mean((1, 2, 3))}


class PaintNetwork(nn.Module):
    """A picture of what it is told: `tokens`, `label`, a `condition` of any size."""

    image_shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, told):
        height, width, channels = self.image_shape
        words = [nn.Embed(64, 8, name=name)(told[name]) for name in ("tokens", "label") if name in told]
        found = jnp.zeros((1, *self.image_shape))
        for i, word in enumerate(words):
            mean = word.reshape(len(word), -1, 8).mean(axis=1)
            found += nn.Dense(height * width * channels, name=f"paint_{i}")(mean).reshape(-1, *self.image_shape)
        if "condition" in told:
            picture = jax.image.resize(told["condition"], (len(told["condition"]), height, width, channels), "linear")
            found += picture + nn.Conv(channels, (3, 3), name="sharpen")(picture)
        return found


@dataclasses.dataclass(frozen=True)
class Painter(Method):
    """Paints what it reads, with a little noise: one stage of a chain of any number."""

    image_shape: tuple[int, int, int]
    reads: tuple[str, ...] = ("tokens",)
    kind: str = "image"
    noise: float = 0.1
    limit: int = 64

    @property
    def conditions(self):
        return self.reads

    @property
    def gives(self):
        return self.kind

    @property
    def limits(self):
        return {name: self.limit for name in self.reads if name in ("tokens", "label")}

    def painted(self, params, batch):
        told = {name: batch[name] for name in self.reads}
        return PaintNetwork(self.image_shape).apply({"params": params["painter"]}, told)

    def init(self, key, batch, stage, given, params, memory):
        told = {name: batch[name] for name in self.reads}
        return {"painter": PaintNetwork(self.image_shape).init(key, told)["params"]}, {"seen": jnp.zeros(())}

    def turns(self, stage):
        return (Turn("paint", ("painter",), self.loss),)

    def loss(self, params, batch, key, state):
        error = jnp.square(self.painted(params, batch) - batch["image"]).mean()
        return error, ({}, {"seen": state.memory["seen"] + 1})

    def sample(self, model, keys, batch):
        noise = jax.vmap(lambda key: jax.random.normal(key, self.image_shape))(keys)
        painted = jnp.tanh(self.painted(model.params, batch) + self.noise * noise)
        return painted if self.kind == "image" else painted.reshape(len(painted), -1)[:, :6]
