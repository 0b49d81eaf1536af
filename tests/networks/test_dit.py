from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop.diffusers_dit import stack_blocks, unstack_blocks
from jaxgen.networks.dit import DiT, DiTBlock
from jaxgen.networks.layers.patches import patchify, unpatchify
from jaxgen.networks.transformer import grid_positions, layer_norm

SMALL = {"width": 16, "depth": 2, "heads": 2, "time_features": 32}
VARIANTS = {
    "plain": {},
    "classes": {"num_classes": 3},
    "context": {"context_dim": 5},
    "everything": {
        "num_classes": 3,
        "vector_dim": 6,
        "context_dim": 5,
        "out_channels": 6,
        "patch_size": 4,
        "time_scale": 0.5,
    },
}
BATCH, LENGTH = 3, 4


def inputs(dit, height=8, width=8, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    given = {
        "x": jax.random.normal(keys[0], (BATCH, height, width, 3)),
        "time": jnp.asarray([1.0, 300.0, 999.0]),
    }
    if dit.num_classes:
        given["label"] = jnp.arange(BATCH)
    if dit.context_dim:
        given["context"] = jax.random.normal(keys[1], (BATCH, LENGTH, dit.context_dim))
    if dit.vector_dim:
        given["vector"] = jax.random.normal(keys[1], (BATCH, dit.vector_dim))
    return given


def random_params(module, *args, seed=7, **given):
    """Every parameter random, so that nothing is hidden by what starts at zero; without compiling an init."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args, **given)["params"]
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.1 if leaf.ndim == 1 else (leaf.size // leaf.shape[-1]) ** -0.5
        return (rng.standard_normal(leaf.shape) * scale).astype(leaf.dtype)

    return jax.tree.map(draw, shapes)


def make(**options):
    dit = DiT(**{**SMALL, **options})
    given = inputs(dit)
    return dit, random_params(dit, **given), given


def jit(function):
    """Compiled with little optimisation: these tests compile far longer than they run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


compiled = functools.cache(lambda dit: jit(dit.apply))


def run(dit, params, **given):
    return compiled(dit)({"params": params}, **given)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_starts_at_zero_with_blocks_that_do_nothing(name):
    dit, _, given = make(**VARIANTS[name])
    params = jit(dit.init)(jax.random.key(1, impl="rbg"), **given)["params"]
    np.testing.assert_array_equal(run(dit, params, **given), 0.0)
    tokens = jax.random.normal(jax.random.key(2), (BATCH, 5, dit.width))
    embedding = jax.random.normal(jax.random.key(3), (BATCH, dit.width))
    block = DiTBlock(dit.heads, 4 * dit.width)
    fresh = {"params": params["block_1"]}
    np.testing.assert_array_equal(block.apply(fresh, tokens, embedding, given.get("context")), tokens)
    for path in ("attention/query", "attention/out", "mlp/in", "mlp/out"):
        first, second = path.split("/")
        assert np.std(params["block_1"][first][second]["kernel"]) > 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name):
    dit, params, given = make(**VARIANTS[name])
    y = jax.eval_shape(dit.apply, {"params": params}, **given)
    assert (y.shape, y.dtype) == ((BATCH, 8, 8, dit.out_channels), jnp.float32)


@pytest.mark.parametrize(
    ("size", "millions"),
    [((384, 12, 6), 33), ((768, 12, 12), 130), ((1024, 24, 16), 458), ((1152, 28, 16), 675)],
)
def test_the_papers_sizes(size, millions):
    """Millions of parameters, Peebles & Xie 2023, appendix: on latents of 32x32x4 with learned variance."""
    width, depth, heads = size
    dit = DiT(out_channels=8, width=width, depth=depth, heads=heads, num_classes=1000)
    given = {"x": jnp.zeros((1, 32, 32, 4)), "time": jnp.zeros(1), "label": jnp.zeros(1, int)}
    params = jax.eval_shape(dit.init, jax.random.key(0), **given)["params"]
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6) == millions


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["plain", "everything"])
def test_every_parameter_learns(name):
    dit, params, given = make(**VARIANTS[name])
    dit = dit.clone(dropout=0.1)

    def loss(params):
        y = dit.apply({"params": params}, **given, train=True, rngs={"dropout": jax.random.key(0, impl="rbg")})
        return jnp.square(y - 1).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path)
        # A constant added to all keys moves all logits of a query alike: no gradient in exact numbers.
        assert "['key']['bias']" in name or float(jnp.abs(gradient).max()) > 1e-5, name


@pytest.mark.parametrize("shape", [(6, 20), (2, 2)])
def test_any_size_that_patches_divide(shape):
    dit, params, _ = make(**VARIANTS["plain"])
    y = run(dit, params, **inputs(dit, *shape))
    assert y.shape == (BATCH, *shape, 3) and np.isfinite(y).all()


def test_patches_are_squares_of_the_image():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 6, 12)
    np.testing.assert_array_equal(tokens[1, 4].reshape(2, 2, 3), x[1, 2:4, 2:4])  # second row, second column
    np.testing.assert_array_equal(unpatchify(tokens, 2, 4, 6), x)


def test_positions_are_of_column_and_row():
    dim = 32
    positions = grid_positions(3, 5, dim).reshape(3, 5, dim)
    assert len(np.unique(positions.reshape(15, dim), axis=0)) == 15
    np.testing.assert_array_equal(positions[..., : dim // 2], np.broadcast_to(positions[:1, :, : dim // 2], (3, 5, 16)))
    np.testing.assert_array_equal(positions[..., dim // 2 :], np.broadcast_to(positions[:, :1, dim // 2 :], (3, 5, 16)))
    np.testing.assert_array_equal(positions, grid_positions(7, 9, dim).reshape(7, 9, dim)[:3, :5])
    # products depend on differences of places alone: cos(a - b) summed over frequencies
    products = np.einsum("hwd,hvd->hwv", positions, positions)
    np.testing.assert_allclose(products[:, 1:, 1:], products[:, :-1, :-1], rtol=1e-5)
    with pytest.raises(UserError, match="divisible by 4"):
        grid_positions(3, 5, 6)


def test_blocks_know_no_order_but_positions_do():
    dit, params, given = make(**VARIANTS["plain"])
    order = np.random.default_rng(0).permutation(16)
    tokens = jax.random.normal(jax.random.key(1), (BATCH, 16, dit.width))
    embedding = jax.random.normal(jax.random.key(2), (BATCH, dit.width))
    block = jit(functools.partial(DiTBlock(dit.heads, 4 * dit.width).apply, {"params": params["block_0"]}))
    np.testing.assert_allclose(block(tokens[:, order], embedding), block(tokens, embedding)[:, order], atol=1e-5)

    def shuffle(x):
        return unpatchify(patchify(x, 2)[:, order], 2, 8, 8)

    y = run(dit, params, **given)
    assert np.abs(run(dit, params, **{**given, "x": shuffle(given["x"])}) - shuffle(y)).max() > 1e-2


def test_normalisation_is_of_each_token():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 64))
    y = layer_norm(x)
    np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1.0, atol=1e-5)
    scale, shift = jnp.asarray([[1.0] * 64, [0.0] * 64]), jnp.asarray([[0.0] * 64, [5.0] * 64])
    modulated = layer_norm(x, scale=scale, shift=shift)
    np.testing.assert_allclose(modulated[0], 2 * y[0], rtol=1e-6)
    np.testing.assert_allclose(modulated[1], y[1] + 5, rtol=1e-6)
    far = (1000 + x).astype(jnp.bfloat16)  # bfloat16 statistics of this would be noise
    assert layer_norm(far).dtype == jnp.bfloat16
    exact = np.asarray(far, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    np.testing.assert_allclose(layer_norm(far).astype(jnp.float32), exact, atol=0.02)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_examples_do_not_see_each_other(name):
    dit, params, given = make(**VARIANTS[name])
    y = run(dit, params, **given)
    other = {key: value.at[1:].set(jnp.flip(value)[1:]) for key, value in given.items()}
    z = run(dit, params, **other)
    np.testing.assert_array_equal(y[0], z[0])
    assert np.abs(y[1] - z[1]).max() > 1e-3


def test_bfloat16_is_close_and_ends_in_float32():
    dit, params, given = make(**VARIANTS["everything"])
    half, half_params, _ = make(**VARIANTS["everything"], dtype="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half_params))
    assert jax.tree.map(jnp.shape, half_params) == jax.tree.map(jnp.shape, params)
    exact, rough = run(dit, params, **given), run(half, params, **given)
    assert exact.dtype == rough.dtype == jnp.float32
    error = float(jnp.linalg.norm(exact - rough) / jnp.linalg.norm(exact))
    assert 1e-5 < error < 0.05


def test_time_and_label_matter():
    dit, params, given = make(**VARIANTS["classes"])
    y = run(dit, params, **given)
    assert np.abs(y - run(dit, params, **{**given, "time": given["time"] + 50})).max() > 1e-3
    assert np.abs(y - run(dit, params, **{**given, "label": (given["label"] + 1) % 3})).max((1, 2, 3)).min() > 1e-3
    null = run(dit, params, **{**given, "label": jnp.full(BATCH, 3)})
    assert np.isfinite(null).all()
    assert np.abs(y - null).max((1, 2, 3)).min() > 1e-3
    # the null class is the last row of the table, and only that
    table = params["class"]["embedding"]
    assert table.shape == (4, dit.width)
    moved = {**params, "class": {"embedding": table + np.eye(4)[3][:, None]}}
    np.testing.assert_array_equal(run(dit, moved, **given), y)
    assert np.abs(run(dit, moved, **{**given, "label": jnp.full(BATCH, 3)}) - null).max() > 1e-3


def test_time_scale_is_a_factor_of_time():
    dit, params, given = make(**VARIANTS["plain"])
    scaled = dit.clone(time_scale=1000.0)
    y = run(dit, params, **given)
    np.testing.assert_allclose(run(scaled, params, x=given["x"], time=given["time"] / 1000), y, atol=1e-3)


def test_masked_context_does_not_matter():
    dit, params, given = make(**VARIANTS["context"])
    mask = jnp.asarray([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    y = run(dit, params, **given, context_mask=mask)
    noise = jnp.where(mask[..., None] == 1, given["context"], 100.0)
    np.testing.assert_array_equal(y, run(dit, params, **{**given, "context": noise}, context_mask=mask))
    shorter = run(dit, params, **{**given, "context": given["context"][:, :2]}, context_mask=mask[:, :2])
    np.testing.assert_allclose(y, shorter, atol=1e-5)
    assert np.abs(y - run(dit, params, **given)).max() > 1e-3


def test_condition_joins_the_channels():
    dit = DiT(**SMALL)
    given = inputs(dit)
    condition = jnp.flip(given["x"][..., :2])
    params = random_params(dit, **given, condition=condition)
    assert params["patch_in"]["kernel"].shape == (2 * 2 * 5, dit.width)
    joined = jnp.concatenate([given["x"], condition], -1)
    expected = run(dit, params, x=joined, time=given["time"])
    np.testing.assert_array_equal(run(dit, params, **given, condition=condition), expected)


def test_dropout_only_in_training():
    dit, params, given = make(dropout=0.5)
    params = {"params": params}
    train = jit(lambda key: dit.apply(params, **given, train=True, rngs={"dropout": key}))
    still = run(dit, params["params"], **given)
    first, again, second = (train(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - still).max() > 1e-3
    no_dropout = DiT(**SMALL)
    jax.eval_shape(lambda: no_dropout.apply(params, **given, train=True))  # asks for no random key


def test_forward_mode_agrees_with_differences():
    dit, params, given = make(**VARIANTS["plain"])
    x, time = given["x"], given["time"]
    direction = jnp.flip(x)

    def f(x):
        return dit.apply({"params": params}, x, time)

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
        ({"patch_size": 4}, {"x": jnp.zeros((3, 8, 10, 3))}, "patches of 4"),
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
        ({}, {"vector": jnp.zeros((3, 4))}, "set vector_dim to 4"),
        ({"vector_dim": 5}, {"vector": None}, "needs a vector"),
        ({"heads": 3}, {}, "heads"),
        ({"heads": 0}, {}, "heads"),
        ({"depth": 0}, {}, "depth"),
        ({"patch_size": 0}, {}, "patch_size"),
        ({"width": 18}, {}, "divisible by 4"),
        ({"time_features": 7}, {}, "even dim"),
    ],
)
def test_what_does_not_fit_is_refused(options, change, word):
    dit = DiT(**{**SMALL, **options})
    given = {**inputs(dit), **change}
    with pytest.raises(UserError, match=word):
        jax.eval_shape(dit.init, jax.random.key(0), **given)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", [pytest.param("", marks=pytest.mark.slow), "block"])
def test_scanned_blocks_are_the_same_function_of_stacked_parameters(remat):
    dit, params, given = make(num_classes=3, context_dim=5)
    scanned = dit.clone(scan_blocks=True, remat=remat)
    stacked = stack_blocks(params)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), **given)["params"]
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(lambda x: x.shape, shapes)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), params)

    def loss(network):
        return jit(jax.value_and_grad(lambda p: jnp.square(network.apply({"params": p}, **given)).sum()))

    value, gradients = loss(dit)(params)
    same, found = loss(scanned)(stacked)
    assert float(same) == pytest.approx(float(value), rel=1e-6)
    found = unstack_blocks(found)
    most = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()) / most, gradients, found)
    assert max(jax.tree.leaves(gaps)) < 1e-6


def test_scanned_blocks_begin_and_drop_out_differently():
    dit = DiT(**{**SMALL, "depth": 3}, scan_blocks=True, dropout=0.5)
    given = inputs(dit)
    fresh = jit(dit.init)(jax.random.key(0), **given)["params"]["blocks"]["attention"]["query"]["kernel"]
    assert fresh.shape == (3, 16, 16) and float(jnp.abs(fresh[0] - fresh[1]).min()) > 0
    params = random_params(dit, **given)
    run = jit(lambda key: dit.apply({"params": params}, **given, train=True, rngs={"dropout": key}))
    assert float(jnp.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max()) > 1e-3


def test_parameters_that_cannot_be_stacked_are_refused():
    with pytest.raises(UserError, match="block_0"):
        stack_blocks({"block_1": {}})
    with pytest.raises(UserError, match="no 'blocks'"):
        unstack_blocks({"block_0": {}})
