"""One diffusion method with parts: text to image, upsampling, unCLIP's decoder and others are configs of it."""

from __future__ import annotations

import dataclasses
import functools
import re
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_latents
from ml_collections import ConfigDict

from jaxgen.codecs.latents import Latents
from jaxgen.conditions.image import Image
from jaxgen.conditions.text import Text
from jaxgen.config import defaults, section
from jaxgen.diffusion import schedules
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.prediction_types import X0, V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.networks.unet import UNet
from jaxgen.runs.setup import make_method

SIZE, CHANNELS, COUNT = 16, 3, 2
ENCODER = {"name": "text_encoder", "vocabulary": 9, "length": 5, "width": 8, "depth": 1, "heads": 2}
TOWER = {"name": "text_tower", "vocabulary": 9, "length": 5, "width": 8, "depth": 1, "heads": 2, "mlp_features": 16}
AUTOENCODER = {
    "name": "autoencoder_kl", "out_channels": 3, "channels": 8, "channel_multipliers": (1, 2), "blocks": 1,
    "latent_channels": 4, "norm_groups": 4,
}  # fmt: skip


def unet(**options):
    usual = {"channels": 8, "channel_multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "norm_groups": 4}
    return section(name="unet", **{**usual, **options})


def text(**options):
    return section(name="text", network=section(**ENCODER), **options)


# {system: (method, the groups that learn, those that are given, the entries that it reads)}
SYSTEMS = {
    "GLIDE": (  # Nichol et al. 2022, section 4: all tokens as context, the last one in the class's place
        {"network": unet(context_dim=8, vector_dim=8, out_channels=6), "learned_variance": True,
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.2)}},
        {"denoiser", "text"}, set(), {"tokens"},
    ),
    "Imagen": (  # Saharia et al. 2022: a frozen text encoder
        {"network": unet(context_dim=8, vector_dim=8), "prediction_type": "v",
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.1, learns=False)}},
        {"denoiser"}, {"text"}, {"tokens"},
    ),
    "Imagen's upsampler": (  # with noise conditioning augmentation: vectors of the text and of the level
        {"network": unet(context_dim=8, vector_dim=8 + 32),
         "parts": {"text": section(name="text", network=section(**TOWER), pooled=True, dropout=0.1, learns=False),
                   "image": section(name="image", noise=0.5)}},
        {"denoiser"}, {"text"}, {"tokens", "condition"},
    ),
    "SR3": (  # Saharia et al. 2021
        {"network": unet(), "schedule": section(name="continuous_cosine"), "parts": {"image": section(name="image")}},
        {"denoiser"}, set(), {"condition"},
    ),
    "unCLIP's decoder": (  # Ramesh et al. 2022, section 2.1
        {"network": unet(context_dim=8, vector_dim=6),
         "parts": {"embedding": section(name="embedding", tokens=4, width=8, dropout=0.1), "text": text(dropout=0.5)}},
        {"denoiser", "text", "embedding"}, set(), {"tokens", "embedding"},
    ),
    "text and image in latents": (
        {"name": "latent_diffusion", "autoencoder": section(**AUTOENCODER), "scale": 0.5, "label_dropout": 0.1,
         "network": unet(context_dim=8, out_channels=4), "text": section(**ENCODER),
         "parts": {"image": section(name="image", dropout=0.1)}},
        {"denoiser", "text"}, {"autoencoder"}, {"tokens", "condition"},
    ),
    "the same, spelt out": (
        {"codec": section(name="latents", autoencoder=section(**AUTOENCODER), scale=0.5),
         "network": unet(context_dim=8, out_channels=4), "parts": {"text": text(dropout=0.1), "image": "image"}},
        {"denoiser", "text"}, {"autoencoder"}, {"tokens", "condition"},
    ),
    "labels of their own dropout": (
        {"network": unet(), "parts": {"label": section(name="label", dropout=0.3), "image": "image"}},
        {"denoiser"}, set(), {"label", "condition"},
    ),
    "unCLIP's prior": (
        {"network": section(name="test_method_parts:Prior", width=6), "prediction_type": "x0",
         "codec": section(name="embedding", width=6, scale=2.0), "parts": {"text": text(dropout=0.1)}},
        {"denoiser", "text"}, set(), {"tokens"},
    ),
    "a transformer": (
        {"network": section(name="dit", width=16, depth=1, heads=2, time_features=16, vector_dim=6, context_dim=8),
         "parts": {"text": text(), "embedding": "embedding", "image": "image"}},
        {"denoiser", "text"}, set(), {"tokens", "embedding", "condition"},
    ),
}  # fmt: skip


def config(options):
    made = defaults()
    usual = {"name": "ddpm", "schedule": section(name="cosine"), "network": unet()}
    made.method = section(**ConfigDict({**usual, **options}))
    made.sampler = section(name="ddim", steps=2, clip=False)
    made.data.update(
        source="caption_shapes",
        resolution=SIZE,
        channels=CHANNELS,
        num_classes=3 if "label" in str(options.get("parts")) else 0,
    )
    return made


def batch():
    random = np.random.default_rng(0)
    return {
        "image": jnp.asarray(random.uniform(-1, 1, (COUNT, SIZE, SIZE, CHANNELS)), jnp.float32),
        "condition": jnp.asarray(random.uniform(-1, 1, (COUNT, 4, 4, CHANNELS)), jnp.float32),
        "tokens": jnp.asarray([[4, 5, 1, 0, 0], [6, 7, 8, 4, 1]], jnp.int32),
        "embedding": jnp.asarray(random.normal(size=(COUNT, 6)), jnp.float32),
        "label": jnp.asarray([0, 2], jnp.int32),
    }


def begin(method, batch):
    given, memory = method.untrained(jax.random.key(1), batch)
    params, carried = method.init(jax.random.key(0), batch, 0, given, {}, memory)
    return Model({**given, **params}, {**memory, **carried}), params, given


SLOW = {"Imagen", "text and image in latents", "the same, spelt out", "labels of their own dropout"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SYSTEMS])
def test_a_system_is_a_config(name):
    options, learned, frozen, entries = SYSTEMS[name]
    method = make_method(config(options))
    assert {*method.conditions} == entries and {*method.required_groups} == frozen
    assert {group for turn in method.turns(0) for group in turn.groups} == learned
    told = {k: v for k, v in batch().items() if k in entries}
    seen = {**told, "image": batch()["image"], "embedding": batch()["embedding"]}

    def everything(key):
        model, params, _ = begin(method, seen)
        assert params.keys() == learned

        def loss(learned):
            state = SimpleNamespace(memory=model.memory)
            return method.loss({**model.params, **learned}, seen, key, state)[0]

        value, slopes = jax.value_and_grad(loss)(params)
        keys = jax.random.split(key, COUNT)
        return value, slopes, method.sample(model, keys, told), method.scores(model, keys, seen)

    value, slopes, drawn, _ = jax.eval_shape(everything, jax.random.key(0))
    assert value.shape == () and slopes.keys() == learned
    assert drawn.shape == ((COUNT, 6) if method.gives == "embedding" else (COUNT, SIZE, SIZE, CHANNELS))


def test_a_guided_sampler_takes_all_parts():
    for name in ("GLIDE", "unCLIP's decoder"):
        made = config(SYSTEMS[name][0])
        made.guidance = section(name="classifier_free", scale=2.0)
        method = make_method(made)
        told = {k: v for k, v in batch().items() if k in method.conditions}
        drawn = jax.eval_shape(
            lambda method=method, told=told: method.sample(
                begin(method, batch())[0], jax.random.split(jax.random.key(0), COUNT), told
            )
        )
        assert drawn.shape == (COUNT, SIZE, SIZE, CHANNELS)


def small(parts=None, **options):
    """A method in latents whose autoencoder loses nothing, with parts."""
    network = UNet(
        out_channels=4, channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(8,),
        middle_attention=False, norm_groups=4, **options.pop("network", {}),
    )  # fmt: skip
    options = {"codec": Latents(tiny_latents.Folded()), "prediction_type": V()} | options
    sampler = DDIM(steps=2, clip=False)
    return DDPM(network, schedules.Cosine(), sampler, image_shape=tiny_latents.SHAPE, parts=parts or {}, **options)


def captioned(**options):
    part = Text(TextEncoder(vocabulary=9, length=5, width=8, depth=1, heads=2), **options)
    return small({"text": part, **({"image": Image()})}, network={"context_dim": 8})


def told():
    random = np.random.default_rng(2)
    return {**tiny_latents.batch(), "condition": jnp.asarray(random.uniform(-1, 1, (3, 4, 4, 1)), jnp.float32)}


@functools.cache
def begun():
    method, known = captioned(), tiny_latents.given()
    init = jax.jit(lambda key: method.init(key, told(), 0, known, {}, tiny_latents.MOMENTS))
    params, memory = init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)  # what starts at zero is to have a say
    params = jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])
    return Model({**known, **params}, {**tiny_latents.MOMENTS, **memory})


KEYS = jax.random.split(jax.random.key(3), 3)


def losses(method, model, *batches, key=0):
    state = SimpleNamespace(memory=model.memory)
    loss = jax.jit(lambda params, batch: method.loss(params, batch, jax.random.key(key), state)[0])
    return [float(loss(model.params, batch)) for batch in batches]


def test_latent_diffusion_is_this_method_with_a_codec_and_a_text():
    method, model = tiny_latents.make(text=True), tiny_latents.begun(text=True)
    part = Text(method.text)
    same = small({"text": part}, network={"context_dim": 8})
    assert same.required_groups == method.required_groups and same.conditions == method.conditions
    assert same.turns(0)[0].groups == method.turns(0)[0].groups and same.shape == method.shape
    assert {**same.limits} == {**method.limits} and {**same.entries} == {**method.entries}
    batch = tiny_latents.batch()
    assert losses(same, model, batch) == losses(method, model, batch)


@pytest.mark.slow
def test_every_part_reaches_the_samples():
    method, model = captioned(), begun()
    draw = jax.jit(method.sample)
    same = jax.vmap(lambda _: KEYS[0])(jnp.arange(3))
    one = {name: told()[name][:1].repeat(3, 0) for name in method.conditions}
    base = draw(model, same, one)
    np.testing.assert_allclose(base[0], base[1], atol=1e-5)
    for name in ("condition", "tokens"):
        changed = draw(model, same, {**one, name: told()[name]})
        assert np.abs(changed[0] - base[0]).max() < 1e-5 and np.abs(changed[1] - base[1]).max() > 1e-4, name


@pytest.mark.slow
def test_dropped_texts_are_as_if_they_were_empty():
    dropping = captioned(dropout=1 - 1e-7)
    empty = {**told(), "tokens": dropping.parts["text"].null(told())["tokens"]}
    found, expected = losses(dropping, begun(), told(), empty)
    plain, same = losses(captioned(), begun(), told(), empty)
    assert found == pytest.approx(same, rel=1e-5) and expected == pytest.approx(same, rel=1e-5)
    assert abs(plain - same) > 1e-5


@pytest.mark.nightly
def test_weights_multiply_the_losses_of_examples():
    method, model = captioned(), begun()
    ones = [{**told(), "weight": jnp.asarray(row, jnp.float32)} for row in np.eye(3)]
    plain, doubled, *alone = losses(method, model, told(), {**told(), "weight": jnp.asarray([2.0, 2.0, 0.0])}, *ones)
    assert sum(alone) == pytest.approx(plain, rel=1e-5) and min(alone) > 0
    assert doubled == pytest.approx(2 * (alone[0] + alone[1]), rel=1e-5)
    with pytest.raises(UserError, match=r"'weight' is float32 of shape \(3, 1\), and the weights of the losses of 3"):
        losses(method, model, {**told(), "weight": jnp.ones((3, 1))})


@pytest.mark.nightly
def test_guidance_leads_away_from_the_text_and_keeps_the_picture():
    free = dataclasses.replace(captioned(knows_null=True), guidance=ClassifierFree(scale=0.0))
    assert {*free.ignored} == {"tokens"}
    empty = {**told(), "tokens": free.parts["text"].null(told())["tokens"]}
    found = jax.jit(free.sample)(begun(), KEYS, told())
    np.testing.assert_allclose(found, jax.jit(captioned().sample)(begun(), KEYS, empty), atol=1e-5)
    untaught = dataclasses.replace(captioned(), guidance=ClassifierFree(scale=2.0))
    with pytest.raises(UserError, match=r"Give config\.method\.parts\.image or config\.method\.parts\.text a dropout"):
        jax.eval_shape(untaught.sample, begun(), KEYS, told())


@dataclasses.dataclass(frozen=True)
class Hole(Image):
    """A picture with a hole: the network sees it, and the denoiser the mask of what it may draw."""

    gives = ("condition", "mask")

    @property
    def entries(self):
        return (self.entry, "mask")

    def __call__(self, params, batch, keys, shape, train=False):
        return {**super().__call__(params, batch, keys, shape, train), "mask": batch["mask"][..., None]}


@dataclasses.dataclass(frozen=True)
class Filled(DDPM):
    """Draws what is unknown alone: the known part of x0 is the picture's, for the loss and for samplers alike."""

    def network_inputs(self, condition):
        return {name: value for name, value in condition.items() if name != "mask"}

    def denoiser(self, params, **options):
        inner = super().denoiser(params, **options)

        def denoise(x, t, mask, **condition):
            now = inner(x, t, **condition)
            return dataclasses.replace(now.to(X0()), value=jnp.where(mask == 1, now.x0, condition["condition"]))

        return denoise


@pytest.mark.nightly
def test_a_denoiser_may_use_what_the_network_is_not_called_with():
    network = UNet(out_channels=1, channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(),
                   middle_attention=False, norm_groups=4)  # fmt: skip
    options = {"prediction_type": V(), "image_shape": (8, 8, 1), "parts": {"hole": Hole()}}
    method = Filled(network, schedules.Cosine(), DDIM(steps=2), **options)
    random = np.random.default_rng(0)
    picture = jnp.asarray(random.uniform(-1, 1, (3, 8, 8, 1)), jnp.float32)
    mask = jnp.asarray(random.integers(0, 2, (3, 8, 8)), jnp.int32)
    batch = {"image": picture, "condition": picture * (1 - mask[..., None]), "mask": mask}
    params, _ = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    drawn = jax.jit(method.sample)(Model(params, {}), KEYS, {name: batch[name] for name in method.conditions})
    np.testing.assert_array_equal(drawn[mask == 0], picture[mask == 0])
    assert np.abs(drawn[mask == 1] - picture[mask == 1]).max() > 0.1
    known = {**batch, "mask": 0 * mask, "condition": picture}
    assert losses(method, Model(params, {}), known)[0] < 1e-8 < losses(method, Model(params, {}), batch)[0]
    with pytest.raises(UserError, match=r"parts\.hole gives 'mask', which the network UNet does not take; it takes"):
        DDPM(network, schedules.Cosine(), DDIM(steps=2), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": unet(num_classes=3), "parts": {"one": section(name="label"), "label": section(name="label")}},
         r"parts\.label and config\.method\.parts\.one both give 'label', which a network takes once"),
        ({"parts": {"denoiser": text()}, "network": unet(context_dim=8)}, "a part or a group of parameters of the"),
        ({"parts": {"text": section(name="txet")}}, r"config\.method\.parts\.text\.name='txet' .*did you mean 'text'"),
        ({"parts": {"text": text(droput=0.1)}}, r"config\.method\.parts\.text\.droput .*did you mean 'dropout'"),
        ({"parts": {"image": "image"}, "network": "test_method_parts:Blind"},
         r"parts\.image gives 'condition', which the network Blind does not take; it takes time, x: name another"),
        ({"codec": section(name="latents", autoencoder=unet(), scale=1.0)},
         r"config\.method\.codec\.autoencoder names the network UNet, which is of another kind .*no 'encode'"),
        ({"name": "latent_diffusion", "autoencoder": section(**AUTOENCODER), "scale": 1.0,
          "codec": section(name="latents", autoencoder=section(**AUTOENCODER))}, r"remove config\.method\.codec"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        make_method(config(options))


class Prior(nn.Module):
    """Predicts a vector from a noisy one and a text."""

    width: int

    @nn.compact
    def __call__(self, x, time, context, context_mask, train=False):
        words = (context * context_mask[..., None]).sum(1)
        return nn.Dense(self.width)(jnp.concatenate([x, words, time[:, None] / 1000], -1))


class Blind(nn.Module):
    """Sees no condition."""

    def __call__(self, x, time):
        return x


def test_the_page_s_example_is_a_method():
    page = (tiny.ROOT / "docs" / "conditions.md").read_text()
    made = defaults()
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {"config": made, "section": section})
    made.sampler = section(name="ddim", steps=2)
    method = make_method(made)
    assert method.conditions == ("condition", "tokens") and method.required_groups == ()
