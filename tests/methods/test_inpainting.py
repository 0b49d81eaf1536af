"""Inpainting by a graft: it begins as the model that it is put on, sees no pixel of a hole, and keeps the others."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.conditions.image import Image
from jaxgen.conditions.text import Text
from jaxgen.diffusion import schedules
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.inpainting import Inpainting
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.tuned import Tuned
from jaxgen.networks.dit import DiT
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

SHAPE, COUNT = (8, 8, 1), 3
KEYS = jax.random.split(jax.random.key(3), COUNT)
HOLE = np.zeros((COUNT, 8, 8), np.int32)
HOLE[0, 2:6, 1:5] = HOLE[1, :, 4:] = HOLE[2] = 1
IMAGE = jnp.tanh(jax.random.normal(jax.random.key(5), (COUNT, *SHAPE)))
BATCH = {
    "image": IMAGE,
    "condition": jnp.where(HOLE[..., None], 0.0, IMAGE),
    "mask": jnp.asarray(HOLE),
    "hint": -IMAGE,
    "tokens": jnp.asarray([[3, 4, 1, 0], [5, 1, 0, 0], [6, 7, 8, 1]]),
}
TIME = jnp.asarray([5.0, 40.0, 90.0])
STATE = SimpleNamespace(memory={}, step=jnp.int32(0), images=jnp.uint32(0), ema={})


def drawn(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


@pytest.fixture(scope="module")
def base():
    """A U-Net of texts and patches whose weights are all drawn, also those that begin at zero."""
    cut = {"patch_size": 2, "vector_dim": 8}
    network = UNet(1, 8, (1,), 1, (), middle_attention=False, middle_blocks=1, norm_groups=4, **cut)
    tower = TextTower(vocabulary=9, length=4, width=8, depth=1, heads=2, mlp_features=8, end=1)
    parts = {"text": Text(tower, context=False, pooled=True, dropout=0.2, mask_padding=False)}
    options = {"parts": parts, "guidance": ClassifierFree(scale=2.0), "prediction_type": X0()}
    method = DDPM(network, schedules.Cosine(100), DDIM(steps=2), SHAPE, **options)
    params, _ = method.init(jax.random.key(0), BATCH, 0, {}, {}, {})
    return method, drawn(params, 1)


@pytest.fixture(scope="module")
def tuned(base):
    trained, params = base
    method = Tuned(trained, {"all": Leaves(), "hole": Inpainting()})
    learned, _ = method.init(jax.random.key(2), BATCH, 0, params, {}, {})
    return method, params, learned


@pytest.fixture(scope="module")
def loss(tuned):
    method, params, _ = tuned
    turn = method.turns(0)[0]
    return jax.jit(jax.grad(lambda learned, batch: turn.loss({**params, **learned}, batch, KEYS[0], STATE)[0]))


@pytest.fixture(scope="module")
def sample(tuned):
    method, params, _ = tuned
    return jax.jit(lambda learned, batch: method.sample(Model({**params, **learned}, {}), KEYS, batch))


def learnt(learned):
    return {**learned, "hole": drawn(learned["hole"], 4)}


@pytest.mark.nightly
def test_it_begins_as_the_model_to_the_bit_and_its_channels_have_a_gradient(base, tuned, loss):
    (trained, params), (method, _, learned) = base, tuned
    assert {*method.conditions} == {"condition", "mask", "tokens"}
    assert learned["hole"]["kernel"].shape == (3, 3, 2 * 4, 8) and not learned["hole"]["kernel"].any()
    told = {"vector": jnp.ones((COUNT, 8))}
    before = jax.jit(lambda: trained.network.apply({"params": params["denoiser"]}, IMAGE, TIME, **told))()
    own, shown = method.on({**params, **learned})["denoiser"], jnp.concatenate([IMAGE, BATCH["mask"][..., None]], -1)
    after = jax.jit(lambda: method.method.network.apply({"params": own}, IMAGE, TIME, **told, erased=shown))()
    np.testing.assert_array_equal(before, after)
    gradient = loss(learned, BATCH)
    assert all(np.abs(gradient["hole"]["kernel"]).max(axis=(0, 1, 3)) > 0)
    assert np.abs(gradient["all"]["conv_in|kernel"]).max() > 0


def test_it_is_more_channels_of_the_first_convolution(base, tuned):
    """A U-Net that takes the picture and the mask beside the image, with the part as further rows of its kernel."""
    (trained, params), (method, _, learned) = base, tuned
    part = learnt(learned)
    x, time = jax.random.normal(jax.random.key(8), (COUNT, *SHAPE)), TIME
    vector, shown = jnp.ones((COUNT, 8)), jnp.concatenate([BATCH["condition"], BATCH["mask"][..., None]], axis=-1)
    given = method.on({**params, **part})["denoiser"]
    found = method.method.network.apply({"params": given}, x, time, vector=vector, erased=shown)
    wide = dict(params["denoiser"])
    own, more = (k.reshape(3, 3, 4, -1, 8) for k in (wide["conv_in"]["kernel"], part["hole"]["kernel"]))
    wide["conv_in"] = {**wide["conv_in"], "kernel": jnp.concatenate([own, more], axis=3).reshape(3, 3, 12, 8)}
    wanted = trained.network.apply({"params": wide}, x, time, vector=vector, condition=shown)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_a_hole_hides_is_never_seen_and_the_rest_is_kept_to_the_bit(tuned, sample):
    _, _, learned = tuned
    part = learnt(learned)
    other = {**BATCH, "condition": jnp.where(HOLE[..., None], 0.7, BATCH["condition"])}
    one = np.asarray(sample(part, BATCH))
    np.testing.assert_array_equal(one, sample(part, other))
    np.testing.assert_array_equal(one[HOLE == 0], np.asarray(IMAGE)[HOLE == 0])
    assert (one[HOLE == 1] != np.asarray(BATCH["condition"])[HOLE == 1]).all()


def test_the_text_and_the_known_part_decide_what_fills_it(tuned, sample):
    _, _, learned = tuned
    part = learnt(learned)
    one = np.asarray(sample(part, BATCH))
    text = np.asarray(sample(part, {**BATCH, "tokens": BATCH["tokens"][::-1]}))
    known = np.asarray(sample(part, {**BATCH, "condition": -BATCH["condition"]}))
    for other in (text, known):
        assert np.abs(one - other)[0][HOLE[0] == 1].max() > 1e-4


def test_it_goes_beside_a_control_which_does_not_see_the_hole(base):
    trained, params = base
    method = Tuned(trained, {"control": Control(), "hole": Inpainting()})
    learned, _ = method.init(jax.random.key(2), BATCH, 0, params, {}, {})
    shapes = jax.eval_shape(lambda: method.turns(0)[0].loss({**params, **learned}, BATCH, KEYS[0], STATE)[0])
    assert shapes.shape == () and {*method.conditions} == {"condition", "mask", "hint", "tokens"}


def test_what_does_not_fit_is_said_in_a_sentence(base):
    trained, params = base

    def begun(method, batch=BATCH):
        jax.eval_shape(lambda: Tuned(method, {"hole": Inpainting()}).init(KEYS[0], batch, 0, params, {}, {}))

    with pytest.raises(UserError, match="config.method.grafts.hole reads the entry 'mask'.*section\\(name='hole'\\)"):
        begun(trained, {name: value for name, value in BATCH.items() if name != "mask"})
    low = DDPM(UNet(1, 8), trained.schedule, trained.sampler, SHAPE, parts={"low": Image()})
    with pytest.raises(UserError, match="'low' of the trained model reads one already: give the graft another entry"):
        begun(low)
    with pytest.raises(UserError, match="widens a U-Net, and the group 'denoiser' has the network DiT"):
        begun(DDPM(DiT(1, patch_size=2), trained.schedule, trained.sampler, SHAPE))
    small = {**BATCH, "condition": BATCH["condition"][:, ::2, ::2]}
    with pytest.raises(UserError, match="'inpainting' reads the entry 'condition' as pictures .* the images' shape"):
        Tuned(trained, {"hole": Inpainting()}).method.condition(params, small, KEYS)
