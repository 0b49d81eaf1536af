"""Grafts on a trained method: nothing changes at the start, the part alone learns, and their order is their own."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_latents

from jaxgen.codecs.latents import Latents
from jaxgen.conditions.text import Text
from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, Turn
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import network_of
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank, layers
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.methods.tuned import Tuned
from jaxgen.networks.dit import DiT
from jaxgen.networks.hooks import after
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

SHAPE = (8, 8, 1)
KEYS = jax.random.split(jax.random.key(3), 4)
IMAGE = jnp.tanh(jax.random.normal(jax.random.key(5), (4, *SHAPE)))
STATE = SimpleNamespace(memory={}, step=jnp.int32(0), images=jnp.uint32(0), ema={})


def diffusion(**options):
    network = DiT(out_channels=1, patch_size=2, width=16, depth=2, heads=2, **options)
    return DDPM(network, schedules.Cosine(100), DDIM(steps=2), SHAPE, prediction_type=V())


@pytest.fixture(scope="module")
def base():
    """A diffusion transformer whose weights are all drawn, also those that begin at zero."""
    method = diffusion()
    params, _ = method.init(jax.random.key(0), {"image": IMAGE}, 0, {}, {}, {})
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return method, jax.tree.unflatten(structure, drawn)


def begun(method, params, batch=None):
    learned, _ = method.init(jax.random.key(2), batch or {"image": IMAGE}, 0, params, {}, {})
    return learned


def drawn(part, seed=7):
    leaves, structure = jax.tree.flatten(part)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


@pytest.mark.slow
def test_a_low_rank_graft_begins_as_the_method_and_learns_alone(base):
    trained, params = base
    method = Tuned(trained, {"lora": LowRank(rank=2)})
    learned = begun(method, params)
    assert learned.keys() == {"lora"} and len(learned["lora"]) == 2 * 4  # two blocks of four projections
    assert {part["a"].shape for part in learned["lora"].values()} == {(16, 2)}
    (turn,) = method.turns(0)
    assert turn.groups == ("lora",)

    def asked(part, params):
        return turn.loss({**params, "lora": part}, {"image": IMAGE}, KEYS[0], STATE)[0]

    loss, gradient = jax.jit(jax.value_and_grad(asked))(learned["lora"], params)
    (own,) = trained.turns(0)
    own_loss = jax.jit(lambda params: own.loss(params, {"image": IMAGE}, KEYS[0], STATE)[0])
    np.testing.assert_allclose(loss, own_loss(params), rtol=1e-6)
    assert all(np.abs(each["b"]).max() > 0 and np.abs(each["a"]).max() == 0 for each in gradient.values())
    before = jax.jit(trained.sample)(Model(params=params, memory={}), KEYS, {})
    after = jax.jit(method.sample)(Model(params={**params, **learned}, memory={}), KEYS, {})
    np.testing.assert_array_equal(before, after)


def test_merged_weights_compute_what_the_hooks_do(base):
    trained, params = base
    graft = LowRank(rank=2, alpha=3.0)
    method = Tuned(trained, {"lora": graft})
    part = drawn(begun(method, params)["lora"])
    hooked = jax.jit(method.sample)(Model(params={**params, "lora": part}, memory={}), KEYS, {})
    merged = jax.jit(trained.sample)(Model(params=graft.merged(params, part), memory={}), KEYS, {})
    plain = jax.jit(trained.sample)(Model(params=params, memory={}), KEYS, {})
    np.testing.assert_allclose(hooked, merged, atol=1e-4)
    assert np.abs(hooked - plain).max() > 0.01


def test_updates_merged_with_weights_predict_as_hooks_do_and_are_unmerged_again(base):
    """Two updates, 0.7 and -0.5 of them, of which some layers have both."""
    trained, params = base
    grafts = {"a": LowRank(rank=2, alpha=3.0), "b": LowRank(where="attention/key|mlp", rank=1)}
    weights = {"a": 0.7, "b": -0.5}
    method = Tuned(trained, grafts)
    parts = {name: drawn(part, seed) for seed, (name, part) in enumerate(begun(method, params).items())}
    scaled = {n: {k: {**m, "b": weights[n] * m["b"]} for k, m in part.items()} for n, part in parts.items()}
    call = (IMAGE, jnp.full(4, 0.5))

    @jax.jit
    def plain(params):
        with jax.default_matmul_precision("highest"):
            return trained.network.apply({"params": params["denoiser"]}, *call)

    with jax.default_matmul_precision("highest"):
        on = method.on({**params, **scaled})["denoiser"]
        hooked = jax.jit(method.method.network.apply)({"params": on}, *call)
    merged = params
    for name, graft in grafts.items():
        merged = graft.merged(merged, parts[name], weights[name])
    size = np.abs(plain(params)).max()
    np.testing.assert_allclose(hooked, plain(merged), atol=1e-5 * size)
    assert np.abs(hooked - plain(params)).max() > 0.1 * size
    for name in reversed(grafts):
        merged = grafts[name].unmerged(merged, parts[name], weights[name])
    for again, before in zip(jax.tree.leaves(merged), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(again, before, atol=1e-6)


def test_an_update_is_the_product_of_its_matrices(base):
    """On one layer, beside a matrix product in float64."""
    trained, params = base
    graft = LowRank(where="block_0/attention/query$", rank=2, alpha=6.0)
    part = drawn(graft.start("lora", KEYS[0], trained, params, {}))
    path = "block_0/attention/query"
    assert [*part] == [path.replace("/", "|")]
    seen = {}

    def watch(name):
        def hook(y, x, **_):
            seen[name] = np.asarray(x, np.float64), np.asarray(y, np.float64)
            return y

        return {path: hook}

    call = (IMAGE, jnp.full(4, 0.5))
    with after(watch("plain")):
        trained.network.apply({"params": params["denoiser"]}, *call)
    hooked = graft.onto(trained).network
    with after(watch("inside")):
        hooked.apply({"params": graft.grafted(params, part)["denoiser"]}, *call)
    x, plain = seen["plain"]
    a, b = (np.asarray(part["block_0|attention|query"][name], np.float64) for name in "ab")
    np.testing.assert_allclose(seen["inside"][1], plain + 3 * x @ a @ b, atol=1e-4)


def test_the_order_of_grafts_is_not_the_configs(base):
    trained, params = base
    grafts = {"b": LowRank(rank=2), "a": LowRank(where="mlp", rank=1)}
    one, other = Tuned(trained, grafts), Tuned(trained, dict(reversed(grafts.items())))
    parts = {name: drawn(part) for name, part in begun(one, params).items()}
    again = begun(other, params)
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), begun(one, params), again))
    model = Model(params={**params, **parts}, memory={})
    np.testing.assert_array_equal(jax.jit(one.sample)(model, KEYS, {}), jax.jit(other.sample)(model, KEYS, {}))


@pytest.mark.slow
def test_grafts_are_put_on_the_networks_of_parts_and_codecs():
    tower = TextTower(vocabulary=9, length=5, width=8, depth=1, heads=2, mlp_features=16)
    text = Text(tower, learns=False, shares="clip", pooled=True, context=False)
    parts = {"text": text, "style": dataclasses.replace(text, entry="style")}
    unet = UNet(4, 8, (1,), 1, (), middle_attention=False, norm_groups=4, vector_dim=16)
    codec = Latents(tiny_latents.Folded(), 1.0)
    trained = DDPM(unet, schedules.Cosine(), DDIM(2, clip=False), (16, 16, 1), codec=codec, parts=parts)
    grafts = {"word": TokenRows(initial_ids=(4,), group="clip"), "lora": LowRank(group="clip", where="block_0", rank=2)}
    method = Tuned(trained, grafts)
    assert method.limits["tokens"] == method.limits["style"] == 10
    same = method.trained.codec.autoencoder
    assert network_of(trained, "autoencoder") is same and network_of(trained, "denoiser") is unet
    tokens = jnp.asarray([[4, 5, 8, 0, 0], [9, 8, 0, 0, 0]], jnp.int32)  # 8 ends a text, as the largest id does
    batch = {"image": jnp.zeros((2, 16, 16, 1)), "tokens": tokens, "style": tokens[::-1]}

    def asked(key):
        given, memory = trained.untrained(key, batch)
        given |= trained.init(key, batch, 0, given, {}, memory)[0]
        learned, _ = method.init(key, batch, 0, given, {}, memory)
        params = {**given, **learned}
        told = method.method.condition(method.on(params), batch)["vector"]
        known = {**batch, "tokens": jnp.where(tokens == 9, 4, tokens)}
        return told, trained.condition(params, {**known, "style": known["tokens"][::-1]})["vector"]

    told, expected = jax.jit(asked)(jax.random.key(0))  # a new row begins as that of the word it is like
    np.testing.assert_allclose(told, expected, atol=1e-5)


@pytest.mark.nightly
def test_leaves_begin_as_they_are_and_take_the_place_of_frozen_ones(base):
    trained, params = base
    method = Tuned(trained, {"kv": Leaves(where=r"attention/(key|value)/")})
    learned = begun(method, params)
    assert len(learned["kv"]) == 2 * 2 * 2  # two blocks, keys and values, each a kernel and a bias
    model = Model(params={**params, **learned}, memory={})
    plain = jax.jit(trained.sample)(Model(params=params, memory={}), KEYS, {})
    np.testing.assert_array_equal(jax.jit(method.sample)(model, KEYS, {}), plain)
    part = drawn(learned["kv"])
    on = method.on({**params, "kv": part})["denoiser"]
    np.testing.assert_array_equal(on["block_0"]["attention"]["key"]["kernel"], part["block_0|attention|key|kernel"])
    for path, kernel in layers(params["denoiser"]).items():
        if not path.endswith(("attention/key", "attention/value")):
            np.testing.assert_array_equal(layers(on)[path], kernel)
    (turn,) = method.turns(0)
    gradient = jax.grad(lambda part: turn.loss({**params, "kv": part}, {"image": IMAGE}, KEYS[0], STATE)[0])(part)
    assert all(np.abs(leaf).max() > 0 for name, leaf in gradient.items() if not name.endswith("key|bias"))


def test_all_leaves_are_the_whole_group_and_none_is_a_sentence(base):
    trained, params = base
    whole = begun(Tuned(trained, {"all": Leaves()}), params)["all"]
    assert sum(x.size for x in jax.tree.leaves(whole)) == sum(x.size for x in jax.tree.leaves(params["denoiser"]))
    half = {"denoiser": jax.tree.map(lambda x: x.astype(jnp.bfloat16), params["denoiser"])}
    assert {x.dtype.name for x in begun(Tuned(trained, {"all": Leaves()}), half)["all"].values()} == {"float32"}
    with pytest.raises(UserError, match="no parameter's path in the group 'denoiser' contains 'no_such'"):
        begun(Tuned(trained, {"kv": Leaves(where="no_such")}), params)


@pytest.mark.slow
def test_fresh_leaves_take_the_place_of_a_trained_block_and_lose_it(base):
    trained, params = base
    method = Tuned(trained, {"block": Leaves(where="block_1/attention/", fresh=True)})
    start = jax.jit(lambda key: method.init(key, {"image": IMAGE}, 0, params, {}, {})[0])
    learned = start(jax.random.key(2))
    untrained = trained.init(jax.random.key(9), {"image": IMAGE}, 0, {}, {}, {})[0]["denoiser"]["block_1"]["attention"]
    assert len(learned["block"]) == len(jax.tree.leaves(untrained)) == 8
    for name, leaf in learned["block"].items():
        _, _, layer, kind = name.split("|")
        old, other = params["denoiser"]["block_1"]["attention"][layer][kind], untrained[layer][kind]
        assert leaf.shape == old.shape and np.abs(leaf - old).max() > 0.1
        np.testing.assert_allclose(leaf.std(), other.std(), rtol=0.25)  # as a network begins, and not as this one was
        assert kind == "bias" or (leaf != other).any()
    on = method.on({**params, **learned})["denoiser"]
    for path, kernel in layers(params["denoiser"]).items():
        if not path.startswith("block_1/attention"):
            np.testing.assert_array_equal(layers(on)[path], kernel)
    again, other = start(jax.random.key(2))["block"], start(jax.random.key(3))["block"]
    assert all((again[name] == leaf).all() for name, leaf in learned["block"].items())
    assert any((other[name] != leaf).any() for name, leaf in learned["block"].items())
    sample = jax.jit(method.sample)(Model(params={**params, **learned}, memory={}), KEYS, {})
    plain = jax.jit(trained.sample)(Model(params=params, memory={}), KEYS, {})
    assert np.abs(sample - plain).max() > 0.01
    for options in ({"file": "a.safetensors"}, {"learns": False}):
        with pytest.raises(UserError, match="fresh=True. to learn"):
            Leaves(fresh=True, **options)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_hooks_see_the_leaves_that_learned_whatever_the_names_and_the_configs_order(base, names):
    """A low-rank update of a key that also learns itself, beside weights that were put together by hand."""
    trained, params = base
    kv, lora = names
    grafts = {lora: LowRank(where="block_0/attention/key$", rank=2), kv: Leaves(where="block_0/attention/key/kernel")}
    method = Tuned(trained, grafts)
    parts = {name: drawn(part) for name, part in begun(method, params).items()}
    model = Model(params={**params, **parts}, memory={})
    found = jax.jit(method.sample)(model, KEYS, {})
    again = Tuned(trained, dict(reversed(grafts.items())))
    np.testing.assert_array_equal(jax.jit(again.sample)(model, KEYS, {}), found)
    ((_, a_and_b),) = parts[lora].items()
    kernel = parts[kv]["block_0|attention|key|kernel"] + a_and_b["a"] @ a_and_b["b"]
    by_hand = jax.tree.map(lambda x: x, params["denoiser"])
    by_hand["block_0"]["attention"]["key"]["kernel"] = kernel
    wanted = jax.jit(trained.sample)(Model(params={"denoiser": by_hand}, memory={}), KEYS, {})
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_how_often_labels_are_dropped_is_the_tunings_to_say(base):
    labelled = dataclasses.replace(diffusion(num_classes=3), num_classes=3, label_dropout=0.1)
    grafts = {"lora": LowRank(rank=2)}
    assert Tuned(labelled, grafts).method.label_dropout == 0.1
    changed = Tuned(labelled, grafts, label_dropout=0.5).method
    assert changed.label_dropout == 0.5 and changed.network.num_classes == labelled.network.num_classes
    assert labelled.label_dropout == 0.1
    with pytest.raises(UserError, match="needs labels"):
        Tuned(base[0], grafts, label_dropout=0.5)
    with pytest.raises(UserError, match="share below 1"):
        Tuned(labelled, grafts, label_dropout=1.0)


def test_the_prior_is_a_second_mean_of_the_loss(base):
    trained, params = base
    batch = {"image": IMAGE, "prior_image": -IMAGE}
    method = Tuned(trained, {"kv": Leaves(where="attention")}, prior_weight=0.5)
    params = {**params, **begun(method, params, batch)}
    (turn,), (own,) = method.turns(0), trained.turns(0)
    loss = jax.jit(lambda: turn.loss(params, batch, KEYS[0], STATE)[0])()
    rows = jnp.stack([IMAGE, -IMAGE], 1).reshape(-1, *SHAPE)  # the noise and the time of a row are those of its place

    @jax.jit
    def alone(weights):
        return own.loss(params, {"image": rows, "weight": weights}, KEYS[0], STATE)[0]

    of_own, of_prior = (alone(jnp.asarray([*pair] * len(IMAGE))) for pair in ((2.0, 0.0), (0.0, 2.0)))
    assert of_own > 0.1 and of_prior > 0.1
    np.testing.assert_allclose(loss, of_own + 0.5 * of_prior, rtol=1e-5)


def test_a_prior_that_cannot_be_used_is_one_sentence(base):
    trained, params = base
    kv = {"kv": Leaves(where="attention")}
    with pytest.raises(UserError, match="weights the images of config.data.extra.prior, and there are none"):
        begun(Tuned(trained, kv, prior_weight=1.0), params)
    with pytest.raises(UserError, match="it is at least 0"):
        Tuned(trained, kv, prior_weight=-1.0)
    with pytest.raises(UserError, match="give both sources the same channels"):
        begun(Tuned(trained, kv), params, {"image": IMAGE, "prior_image": IMAGE.repeat(3, -1)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"where": "mlp"}, "which config.method.grafts.lora.where='mlp' does not choose"),
        ({"rank": 3}, "by a rank of 2, and config.method.grafts.lora.rank is 3"),
    ],
)
def test_a_part_of_a_file_brings_its_layers_and_ranks(base, change, told):
    trained, params = base
    rng = np.random.default_rng(0)
    part = {"block_1|attention|out": {"a": rng.normal(size=(16, 2)), "b": rng.normal(size=(2, 16))}}
    method = Tuned(trained, {"lora": LowRank(file="updates.safetensors")})
    learned = begun(method, {**params, "lora": part})
    assert [*learned["lora"]] == [*part] and method.learned == ("lora",)
    with pytest.raises(UserError, match=f"updates.safetensors updates 'block_1/attention/out'.*{told}"):
        begun(Tuned(trained, {"lora": LowRank(file="updates.safetensors", **change)}), {**params, "lora": part})
    other = {"block_1|attention|outt": part["block_1|attention|out"]}
    with pytest.raises(UserError, match="has no such layer; did you mean 'block_1/attention/out'"):
        begun(method, {**params, "lora": other})
    wide = {"block_1|attention|out": {"a": np.zeros((9, 2)), "b": np.zeros((2, 16))}}
    with pytest.raises(UserError, match="the layer is 16x16: it belongs to another model"):
        begun(method, {**params, "lora": wide})
    with pytest.raises(UserError, match="brings its alpha"):
        LowRank(file="updates.safetensors", alpha=2.0)


@pytest.mark.parametrize(
    ("grafts", "told"),
    [
        ({}, "is empty"),
        ({"denoiser": LowRank()}, "has a group of this name"),
        ({"lora": LowRank(where="no_such_layer")}, "contains 'no_such_layer'; set `where` to a part of .*: block_<n>/"),
        ({"row": TokenRows((1,))}, "no network of a group 'text'"),
    ],
)
def test_grafts_that_do_not_fit_are_one_sentence(base, grafts, told):
    trained, params = base
    with pytest.raises(UserError, match=told):
        if "row" in grafts:
            grafts["row"].onto(trained)
        begun(Tuned(trained, grafts), params)


@pytest.mark.slow
def test_scanned_layers_are_refused_by_name():
    trained = diffusion(scan_blocks=True)
    params, _ = trained.init(jax.random.key(0), {"image": IMAGE}, 0, {}, {}, {})
    with pytest.raises(UserError, match=r"config\.method\.grafts\.lora: .*attention/.* not scanned"):
        begun(Tuned(trained, {"lora": LowRank()}), params)


@dataclasses.dataclass(frozen=True)
class Captioned(Method):
    """An image of one colour for a text: the pooled text through one linear layer."""

    text: nn.Module
    head: nn.Module
    image_shape: tuple[int, int, int] = SHAPE
    conditions = ("tokens",)
    required_groups = ("text",)

    def turns(self, stage):
        return (Turn("fit", ("head",), self.loss),)

    def images(self, params, batch):
        pooled = apply_params(self.text, params["text"], batch["tokens"])[1]
        colour = apply_params(self.head, params["head"], pooled)
        return jnp.broadcast_to(colour[:, None, None], (len(colour), *self.image_shape))

    def loss(self, params, batch, key, state):
        return jnp.square(self.images(params, batch) - batch["image"]).mean(), ({}, {})

    def sample(self, model, keys, batch):
        return self.images(model.params, batch)


@pytest.mark.slow
def test_a_new_word_is_a_row_of_its_own_and_the_end_stays_the_end():
    text = TextTower(vocabulary=12, length=6, width=8, depth=1, heads=2, mlp_features=16)  # the end is the largest id
    tokens = jnp.array([[1, 4, 11, 0, 0, 0], [1, 5, 6, 11, 0, 0]])
    params = {"text": init_params(text, jax.random.key(0), tokens)}
    params["head"] = init_params(nn.Dense(1), jax.random.key(1), jnp.zeros((1, 8)))
    trained = Captioned(text, nn.Dense(1))
    method = Tuned(trained, {"cat": TokenRows((4, 5), count=2)})
    batch = {"image": IMAGE[:2], "tokens": tokens}
    learned = begun(method, params, batch)
    np.testing.assert_array_equal(learned["cat"]["rows"], params["text"]["token"]["embedding"][jnp.array([4, 5])])
    everything = {**params, **learned}
    old = trained.images(params, batch)
    model = Model(params=everything, memory={})
    np.testing.assert_array_equal(method.sample(model, KEYS[:2], batch), old)  # old words, old images
    new = {**batch, "tokens": jnp.array([[1, 12, 11, 0, 0, 0], [1, 13, 6, 11, 0, 0]])}  # the new ids 12 and 13
    np.testing.assert_allclose(method.sample(model, KEYS[:2], new), old, atol=1e-6)
    (turn,) = method.turns(0)
    gradient = jax.grad(lambda part: turn.loss({**params, "cat": part}, new, KEYS[0], STATE)[0])(learned["cat"])
    assert (np.abs(gradient["rows"]).max(axis=1) > 0).all()
    unused = jax.grad(lambda part: turn.loss({**params, "cat": part}, batch, KEYS[0], STATE)[0])(learned["cat"])
    assert (np.asarray(unused["rows"]) == 0).all()
    assert method.limits["tokens"] == 14 and trained.limits["tokens"] == 12
    with pytest.raises(UserError, match="has 12 tokens, and initial_ids names 40"):
        begun(Tuned(trained, {"cat": TokenRows((40,))}), params, batch)


@pytest.mark.parametrize(
    ("grafts", "message"),
    [
        ({"lora": LowRank(group="unet")}, "grafts.lora.group='unet': the trained method has no such group.*denoiser"),
        ({"word": TokenRows(initial_ids=(1,))}, "grafts.word.group='text': the trained method has no such group"),
        ({"a": LowRank(), "b": LowRank(group="a")}, "grafts.b.group='a': the trained method has no such group"),
        ({"denoiser": LowRank()}, "grafts.denoiser: the trained method has a group of this name"),
        ({"pretrained": LowRank()}, "grafts.pretrained: init_from has a key of this name"),
    ],
)
def test_a_graft_has_a_name_of_its_own_and_a_group_of_the_trained_method(base, grafts, message):
    with pytest.raises(UserError, match=message):
        Tuned(base[0], grafts)


def test_new_words_need_a_table_of_tokens(base):
    trained, params = base
    with pytest.raises(UserError, match="grafts.word: the group 'denoiser' has no table of tokens"):
        begun(Tuned(trained, {"word": TokenRows(initial_ids=(1,), group="denoiser")}), params)


def test_words_have_the_ids_of_their_rows_in_the_order_of_the_grafts():
    text = TextTower(vocabulary=12, length=6, width=8, depth=1, heads=2, mlp_features=16)
    trained = Captioned(text, nn.Dense(1))
    grafts = {
        "second": TokenRows((4,), word="<b>"),
        "first": TokenRows((4,), word="<a>", count=2),
        "mute": TokenRows((4,)),
    }
    assert Tuned(trained, grafts).words == {"<a>": (12, 13), "<b>": (15,)}
    assert Tuned(trained, grafts).method.text.vocabulary == 16 and Tuned(trained, grafts).method.text.end == 11
    with pytest.raises(UserError, match="'<a>' of the graft 'second' is another graft's, too"):
        _ = Tuned(trained, {**grafts, "second": TokenRows((4,), word="<a>")}).words


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "needs a word to start from"),
        ({"initial": "cat", "file": "f"}, "starts from its file or from initial, not from both"),
        ({"initial_ids": (1,), "count": -1}, "a count of 1 or more"),
    ],
)
def test_rows_that_start_from_nothing_or_from_two_things_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        TokenRows(**options)


@pytest.mark.nightly
def test_rows_of_a_file_fit_the_table():
    text = TextTower(vocabulary=12, length=6, width=8, depth=1, heads=2, mlp_features=16)
    trained, graft = Captioned(text, nn.Dense(1)), TokenRows(file="toy.safetensors", count=2)
    params = {"text": {"token": {"embedding": jnp.zeros((12, 8))}}, "head": {}}
    rows = jnp.ones((2, 8))
    assert begun(Tuned(trained, {"toy": graft}), {**params, "toy": {"rows": rows}}, {})["toy"]["rows"] is rows
    for wrong, told in (
        (jnp.ones((2, 9)), "vectors of 9 features, and the text encoder's have 8"),
        (rows[:1], "1 vectors"),
    ):
        with pytest.raises(UserError, match=f"toy.safetensors has {told}"):
            begun(Tuned(trained, {"toy": graft}), {**params, "toy": {"rows": wrong}}, {})
