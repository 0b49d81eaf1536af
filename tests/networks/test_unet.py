from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.hooks import after
from jaxgen.networks.unet import UNet

SMALL = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "blocks": 1,
    "norm_groups": 4,
    "attention_resolutions": (4,),
}
VARIANTS = {
    "plain": {},
    "adaptive": {"time_mode": "adaptive", "heads": 2},
    "residual": {"resample": "residual", "head_channels": 4},
    "fourier": {"time_embedding": "fourier", "time_scale": 1e-3, "downsample_padding": "same"},
    "one level": {"channel_multipliers": (1,), "attention_resolutions": (), "middle_attention": False},
    "classes": {"num_classes": 3},
    "context": {"context_dim": 5},
    "levels": {
        "attention_levels": (0,),
        "heads": (2, 4),
        "context_dim": 5,
        "transformer_depth": (1, 2),
        "only_cross_attention": (True, False),
        "input_kernel": 1,
        "output_kernel": 5,
    },
    "appended context": {"context_dim": 5, "context_attention": "appended", "heads": 2},
    "bare middle": {"attention_levels": (), "middle_blocks": 0},
    "everything": {
        "time_mode": "adaptive",
        "resample": "residual",
        "num_classes": 3,
        "vector_dim": 6,
        "context_dim": 5,
        "out_channels": 6,
    },
}
BATCH, LENGTH = 3, 4


def inputs(unet, height=8, width=8, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    given = {
        "x": jax.random.normal(keys[0], (BATCH, height, width, 3)),
        "time": jnp.asarray([1.0, 300.0, 999.0]),
    }
    if unet.num_classes:
        given["label"] = jnp.arange(BATCH)
    if unet.context_dim:
        given["context"] = jax.random.normal(keys[1], (BATCH, LENGTH, unet.context_dim))
    if unet.vector_dim:
        given["vector"] = jax.random.normal(keys[1], (BATCH, unet.vector_dim))
    return given


def random_params(unet, seed=7, **given):
    """Every parameter random, so that nothing is hidden by what starts at zero; without compiling an init."""
    shapes = jax.eval_shape(unet.init, jax.random.key(0), **given)["params"]
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = max(1, leaf.size // leaf.shape[-1])
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + rng.standard_normal(leaf.shape) * (0.1 if leaf.ndim == 1 else fan_in**-0.5)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make(**options):
    unet = UNet(**{**SMALL, **options})
    given = inputs(unet)
    return unet, random_params(unet, **given), given


def jit(function):
    """Compiled with little optimisation: these tests compile far longer than they run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


compiled = functools.cache(lambda unet: jit(unet.apply))


def run(unet, params, **given):
    return compiled(unet)({"params": params}, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_starts_at_zero(name):
    unet, _, given = make(**VARIANTS[name])
    params = jit(unet.init)(jax.random.key(1, impl="rbg"), **given)["params"]
    np.testing.assert_array_equal(run(unet, params, **given), 0.0)
    for block in ("down_0_block_0", "middle_block_1", "up_0_block_1"):
        np.testing.assert_array_equal(params[block]["conv_out"]["kernel"], 0.0)
        assert np.std(params[block]["conv_in"]["kernel"]) > 0.01
    np.testing.assert_array_equal(params["middle_attention"]["out"]["kernel"], 0.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name):
    unet, params, given = make(**VARIANTS[name])
    y = jax.eval_shape(unet.apply, {"params": params}, **given)
    assert (y.shape, y.dtype) == ((BATCH, 8, 8, unet.out_channels), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_every_parameter_learns(name):
    unet, params, given = make(**VARIANTS[name])

    def loss(params):
        return jnp.square(unet.apply({"params": params}, **given) - 1).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path)
        # A constant added to all keys moves all logits of a query alike: no gradient in exact numbers.
        assert "['key']['bias']" in name or float(jnp.abs(gradient).max()) > 1e-5, name


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_any_size_that_halves(name):
    unet, params, _ = make(**VARIANTS[name], attention_resolutions=())
    y = jax.eval_shape(unet.apply, {"params": params}, **inputs(unet, 6, 20))
    assert y.shape == (BATCH, 6, 20, 3)


def test_attention_is_where_the_shorter_side_says():
    unet = UNet(**{**SMALL, "attention_resolutions": (4,)})
    time = jnp.zeros(1)
    tree = jax.eval_shape(unet.init, jax.random.key(0), jnp.zeros((1, 8, 16, 3)), time)["params"]
    assert "down_1_attention_0" in tree and "down_0_attention_0" not in tree
    tree = jax.eval_shape(unet.init, jax.random.key(0), jnp.zeros((1, 16, 4, 3)), time)["params"]
    assert "down_0_attention_0" in tree and "down_1_attention_0" not in tree


def test_attention_is_at_the_levels_that_are_named():
    unet = UNet(**{**SMALL, **VARIANTS["levels"]})
    for given in (inputs(unet), inputs(unet, 16, 32)):
        tree = jax.eval_shape(unet.init, jax.random.key(0), **given)["params"]
        assert {name for name in tree if "attention" in name} == {
            "down_0_attention_0",
            "middle_attention",
            "up_0_attention_0",
            "up_0_attention_1",
        }
    fine, middle = tree["down_0_attention_0"], tree["middle_attention"]
    assert {name for name in fine if "block" in name} == {"block_0"}
    assert {name for name in middle if "block" in name} == {"block_0", "block_1"}
    assert "first_cross_attention" in fine["block_0"] and "self_attention" in middle["block_0"]
    assert fine["block_0"]["cross_attention"]["key"]["kernel"].shape == (5, 8)
    assert "bias" not in fine["block_0"]["cross_attention"]["key"]


@pytest.mark.slow
def test_an_untrained_transformer_changes_nothing():
    unet, params, given = make(**VARIANTS["context"])
    for name, layer in params.items():
        if "attention" in name:
            layer["out"] = jax.tree.map(jnp.zeros_like, layer["out"])
    y = run(unet, params, **given)
    other = {**given, "context": given["context"] + 1}
    np.testing.assert_array_equal(y, run(unet, params, **other))


@pytest.mark.parametrize(
    ("kind", "shape"), [("timestep", ()), ("identity", (32,)), ("projection", (3,)), ("simple_projection", (3,))]
)
def test_labels_may_be_numbers_and_vectors(kind, shape):
    unet = UNet(**SMALL, class_embedding=kind, class_dim=3)
    label = jnp.ones((BATCH, *shape))
    y = jax.eval_shape(lambda: unet.init_with_output(jax.random.key(0), **inputs(unet), label=label)[0])
    assert y.shape == (BATCH, 8, 8, 3)
    for wrong in (None, jnp.ones((BATCH, *shape, 2))):
        with pytest.raises(UserError, match="class_embedding"):
            jax.eval_shape(lambda wrong=wrong: unet.init(jax.random.key(0), **inputs(unet), label=wrong))


@pytest.mark.parametrize("name", ["fourier", "everything"])
def test_examples_do_not_see_each_other(name):
    unet, params, given = make(**VARIANTS[name])
    y = run(unet, params, **given)
    other = {key: value.at[1:].set(jnp.flip(value)[1:]) for key, value in given.items()}
    z = run(unet, params, **other)
    np.testing.assert_array_equal(y[0], z[0])
    assert np.abs(y[1] - z[1]).max() > 1e-3


@pytest.mark.nightly
def test_bfloat16_is_close_and_ends_in_float32():
    unet, params, given = make(**VARIANTS["everything"])
    half, half_params, _ = make(**VARIANTS["everything"], dtype="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half_params))
    assert jax.tree.map(jnp.shape, half_params) == jax.tree.map(jnp.shape, params)
    exact, rough = run(unet, params, **given), run(half, params, **given)
    assert exact.dtype == rough.dtype == jnp.float32
    error = float(jnp.linalg.norm(exact - rough) / jnp.linalg.norm(exact))
    assert 1e-5 < error < 0.05


@pytest.mark.slow
def test_time_and_label_matter():
    unet, params, given = make(**VARIANTS["classes"])
    y = run(unet, params, **given)
    assert np.abs(y - run(unet, params, **{**given, "time": given["time"] + 50})).max() > 1e-3
    null = run(unet, params, **{**given, "label": jnp.full(BATCH, 3)})
    assert np.isfinite(null).all()
    assert np.abs(y - null).max((1, 2, 3)).min() > 1e-3


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["context", "appended context"])
def test_masked_context_does_not_matter(name):
    unet, params, given = make(**VARIANTS[name])
    mask = jnp.asarray([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    y = run(unet, params, **given, context_mask=mask)
    noise = jnp.where(mask[..., None] == 1, given["context"], 100.0)
    np.testing.assert_array_equal(y, run(unet, params, **{**given, "context": noise}, context_mask=mask))
    shorter = run(unet, params, **{**given, "context": given["context"][:, :2]}, context_mask=mask[:, :2])
    np.testing.assert_allclose(y, shorter, atol=1e-5)
    assert np.abs(y - run(unet, params, **given)).max() > 1e-3


@pytest.mark.slow
def test_condition_joins_the_channels():
    unet = UNet(**SMALL)
    given = inputs(unet)
    condition = jnp.flip(given["x"][..., :2])
    params = random_params(unet, **given, condition=condition)
    assert params["conv_in"]["kernel"].shape[2] == 5
    joined = jnp.concatenate([given["x"], condition], -1)
    expected = run(unet, params, x=joined, time=given["time"])
    np.testing.assert_array_equal(run(unet, params, **given, condition=condition), expected)


def test_a_vector_joins_the_embedding_of_time():
    unet, params, given = make(vector_dim=6)
    bare = {name: layer for name, layer in params.items() if not name.startswith("vector")}
    without = run(UNet(**SMALL), bare, x=given["x"], time=given["time"])
    silent = {**params, "vector_out": jax.tree.map(jnp.zeros_like, params["vector_out"])}
    np.testing.assert_array_equal(run(unet, silent, **given), without)
    assert np.abs(run(unet, params, **given) - without).max((1, 2, 3)).min() > 1e-3


@pytest.mark.nightly
def test_residuals_are_added_to_the_skips_and_the_middle():
    unet, params, given = make(attention_resolutions=())
    y = run(unet, params, **given)
    # conv_in, a block of each of two levels with a resampling between them, and the middle
    shapes = [(8, 8, 8), (8, 8, 8), (4, 4, 8), (4, 4, 16), (4, 4, 16)]
    zeros = tuple(jnp.zeros((BATCH, *shape)) for shape in shapes)
    np.testing.assert_array_equal(run(unet, params, **given, residuals=zeros), y)
    for i, zero in enumerate(zeros):
        one = (*zeros[:i], zero.at[1].set(1.0), *zeros[i + 1 :])
        found = run(unet, params, **given, residuals=one)
        np.testing.assert_array_equal(found[0], y[0])
        assert np.abs(found[1] - y[1]).max() > 1e-3, i
    random = jnp.flip(given["x"].reshape(BATCH, -1))[:, : 4 * 4 * 4].reshape(BATCH, 4, 4, 4).repeat(4, -1)
    with after({"middle_block_1": lambda h, *_: h + random}):
        expected = unet.apply({"params": params}, **given)
    found = unet.apply({"params": params}, **given, residuals=(*zeros[:-1], random))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for wrong in (zeros[1:], (*zeros[:-1], zeros[0])):
        with pytest.raises(UserError, match="residuals have the shapes .* one for each of the way down"):
            jax.eval_shape(lambda wrong=wrong: unet.apply({"params": params}, **given, residuals=wrong))


@pytest.mark.slow
def test_dropout_only_in_training():
    unet, params, given = make(dropout=0.5)
    params = {"params": params}
    train = jit(lambda key: unet.apply(params, **given, train=True, rngs={"dropout": key}))
    still = run(unet, params["params"], **given)
    first, again, second = (train(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - still).max() > 1e-3
    no_dropout = UNet(**SMALL)
    jax.eval_shape(lambda: no_dropout.apply(params, **given, train=True))  # asks for no random key


@pytest.mark.nightly
def test_forward_mode_agrees_with_differences():
    unet, params, given = make(**VARIANTS["adaptive"])
    x, time = given["x"], given["time"]
    direction = jnp.flip(x)

    def f(x):
        return unet.apply({"params": params}, x, time)

    with jax.default_matmul_precision("highest"):
        _, tangent = jit(lambda x: jax.jvp(f, (x,), (direction,)))(x)
        step = 1e-2
        difference = (jit(f)(x + step * direction) - jit(f)(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(tangent, difference, atol=1e-2 * float(jnp.abs(tangent).max()))
    assert float(jnp.abs(tangent).max()) > 1e-2


@pytest.mark.parametrize(
    ("options", "change", "word"),
    [
        ({}, {"x": jnp.zeros((3, 7, 8, 3))}, "7x8"),
        ({}, {"x": jnp.zeros((8, 8, 3))}, "B, H, W, C"),
        ({}, {"time": jnp.zeros(2)}, "time"),
        ({}, {"label": jnp.zeros(3, int)}, "num_classes"),
        ({"num_classes": 3}, {"label": None}, "needs a label"),
        ({"num_classes": 3}, {"label": jnp.zeros(3)}, "integers"),
        ({}, {"context": jnp.zeros((3, 4, 5))}, "context_dim"),
        ({"context_dim": 5}, {"context": None}, "needs context"),
        ({"context_dim": 5}, {"context": jnp.zeros((3, 4, 6))}, "context"),
        ({"context_dim": 5}, {"context_mask": jnp.zeros((3, 3))}, "context_mask"),
        ({}, {"condition": jnp.zeros((3, 4, 4, 3))}, "resize"),
        ({}, {"vector": jnp.zeros((3, 4))}, "vector_dim=0: set vector_dim to 4"),
        ({"vector_dim": 5}, {"vector": jnp.zeros((3, 4))}, "vector_dim=5: set vector_dim to 4"),
        ({"vector_dim": 5}, {"vector": jnp.zeros((3, 4, 5))}, "the width of vectors"),
        ({"vector_dim": 5}, {"vector": None}, "needs a vector"),
        ({"norm_groups": 3}, {}, "norm_groups"),
        ({"heads": 3}, {}, "heads"),
        ({"head_channels": 3}, {}, "head_channels"),
        ({"time_mode": "multiply"}, {}, "time_mode"),
        ({"resample": "bilinear"}, {}, "resample"),
        ({"time_embedding": "learned"}, {}, "time_embedding"),
        ({"channel_multipliers": ()}, {}, "channel_multipliers"),
        ({"heads": (2, 2, 2)}, {}, "3 entries for 2 levels"),
        ({"blocks": (1, 2, 2)}, {}, "blocks .* 3 entries for 2 levels"),
        ({"attention_levels": (2,)}, {}, "attention_levels"),
        ({"input_kernel": 2}, {}, "odd"),
        ({"middle_blocks": 3}, {}, "middle_blocks"),
        ({"class_embedding": "sum"}, {}, "class_embedding"),
        ({"context_attention": "added"}, {}, "context_attention"),
        ({"context_attention": "appended"}, {}, "set context_dim"),
        ({"context_attention": "appended", "context_dim": 5, "transformer_depth": 2}, {}, "transformer_depth"),
    ],
)
def test_what_does_not_fit_is_refused(options, change, word):
    unet = UNet(**{**SMALL, **options})
    given = {**inputs(unet), **change}
    with pytest.raises(UserError, match=word):
        jax.eval_shape(unet.init, jax.random.key(0), **given)


@pytest.mark.slow
def test_patches_are_positions_of_the_finest_level():
    options = dict(channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(), norm_groups=4)
    options["middle_attention"] = False
    whole, cut = UNet(out_channels=2, patch_size=2, **options), UNet(out_channels=8, **options)
    x = jax.random.normal(jax.random.key(0), (1, 8, 4, 3))
    pieces = jnp.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=3).reshape(1, 4, 2, 12)
    params = cut.init(jax.random.key(1), pieces, jnp.ones(1))
    params = jax.tree.map(lambda v: v + 0.1, params)  # the last layer starts at zero
    given, wanted = whole.apply(params, x, jnp.ones(1)), cut.apply(params, pieces, jnp.ones(1))
    for place, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        np.testing.assert_allclose(given[:, i::2, j::2], wanted[..., 2 * place : 2 * place + 2], rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="9x8 cannot be cut into patches of 2 and halved 0 times"):
        whole.init(jax.random.key(1), jnp.zeros((1, 9, 8, 3)), jnp.ones(1))


@pytest.mark.nightly
def test_each_level_has_its_own_number_of_blocks():
    unet, params, given = make(blocks=(1, 3))
    ways = ("down_0", "down_1", "up_0", "up_1")
    found = [sum(name.startswith(f"{way}_block") for name in params) for way in ways]
    assert found == [1, 3, 2, 4]
    same, alike, _ = make(blocks=(1, 1))
    np.testing.assert_array_equal(run(same, alike, **given), run(UNet(**SMALL), alike, **given))
    assert np.abs(run(unet, params, **given)).max() > 0


@pytest.mark.nightly
def test_skips_are_scaled_where_the_way_up_takes_them():
    scaled, params, given = make(skip_scale=0.5)
    seen = {}

    def watched(unet):
        def keep(output, x, *_):
            seen[unet.skip_scale] = x
            return output

        with after({"up_1_block_0": keep}):
            unet.apply({"params": params}, **given)

    watched(scaled)
    watched(UNet(**SMALL))
    width = seen[1.0].shape[-1] // 2  # what comes from below, and behind it the skip
    np.testing.assert_array_equal(seen[0.5][..., :width], seen[1.0][..., :width])
    np.testing.assert_array_equal(seen[0.5][..., width:], 0.5 * seen[1.0][..., width:])
