"""CLIP against transformers with random weights: towers, embeddings, logits, preprocessing, and files both ways."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and transformers: install the extra 'parity'")
import transformers  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402

from jaxgen.interop import clip as interop  # noqa: E402
from jaxgen.metrics.networks.clip import MEAN, STD, crop_square  # noqa: E402
from jaxgen.networks.pretrained import clip as networks  # noqa: E402

pytestmark = pytest.mark.parity

TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "hidden_act": "quick_gelu",
    "bos_token_id": 48,
    "eos_token_id": 49,
    "pad_token_id": 49,
}
IMAGE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "quick_gelu",
}
LOOSER = {"atol": 1e-5, "rtol": 1e-4}


def randomise(model):
    """Weights large enough that no part of the network is close to the identity, or to nothing."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim:
                weight += torch.randn(weight.shape, generator=chance) * (0.3 if weight.ndim == 1 else 0.15)
    return model.eval()


def clip_model(activation="quick_gelu", end=49):
    text = {**TEXT, "hidden_act": activation, "eos_token_id": end}
    image = {**IMAGE, "hidden_act": activation}
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=20)
    return randomise(transformers.CLIPModel(config))


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def texts(rows=4, length=12, seed=0):
    """Rows of start, tokens, end, padding by the end token; the last is full."""
    chance = np.random.default_rng(seed)
    tokens = np.full((rows, length), 49, np.int32)
    for row, count in zip(tokens, [*chance.integers(1, length - 3, rows - 1), length - 2], strict=True):
        row[: count + 1] = [48, *chance.integers(3, 48, count)]
    return tokens


@pytest.mark.parametrize(("activation", "end"), [("quick_gelu", 2), ("gelu", 49)])
def test_a_whole_clip_is_transformers(activation, end):
    model = clip_model(activation, end)
    config = model.config.to_dict()
    clip, params = interop.clip_from_transformers(arrays(model), config)
    assert (clip.text.end, clip.image.activation) == (None if end == 2 else 49, activation)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    tokens = texts()
    with torch.no_grad():
        told = model(pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)), input_ids=torch.tensor(tokens).long())
    image, text, scale = jax.jit(clip.apply)({"params": params}, images, tokens)
    np.testing.assert_allclose(image, told.image_embeds, atol=1e-5)
    np.testing.assert_allclose(text, told.text_embeds, atol=1e-5)
    np.testing.assert_allclose(scale * image @ text.T, told.logits_per_image, **LOOSER)
    hidden, _ = clip.image.apply({"params": params["image"]}, images)
    np.testing.assert_allclose(hidden, told.vision_model_output.last_hidden_state, **LOOSER)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_one_block_is_transformers(activation):
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    config = transformers.CLIPTextConfig(**{**TEXT, "hidden_act": activation})
    config._attn_implementation = "eager"
    layer = randomise(CLIPEncoderLayer(config))
    state = {f"encoder.layers.0.{key}": value.numpy() for key, value in layer.state_dict().items()}
    names = (name for name in interop.text_names(1, "") if name[1].startswith("encoder"))
    params: dict = {}
    for ours, theirs, axes in names:
        *parents, leaf = ours.split("/")[1:]
        place = params
        for part in parents:
            place = place.setdefault(part, {})
        place[leaf] = state[theirs].transpose(axes)
    x = np.random.default_rng(0).normal(size=(2, 6, 32)).astype(np.float32)
    sees = np.tril(np.ones((6, 6), bool))
    with torch.no_grad():
        told = layer(torch.tensor(x), torch.tensor(np.where(sees, 0.0, -np.inf).astype(np.float32))[None, None])
    found = networks.Block(4, 48, 3, activation, 1e-5).apply({"params": params}, x, sees[None, None])
    np.testing.assert_allclose(found, told[0] if isinstance(told, tuple) else told, atol=1e-5)


@pytest.mark.parametrize("end", [2, 49, 47])
def test_texts_are_pooled_at_their_end_by_either_rule(end):
    model = randomise(transformers.CLIPTextModel(transformers.CLIPTextConfig(**{**TEXT, "eos_token_id": end})))
    tower, params = interop.text_from_transformers(arrays(model), model.config.to_dict())
    tokens = texts()
    if end == 47:  # an end that is not the largest id, in the middle of the text, padding by 0
        tokens[:] = np.where(tokens == 49, 0, np.minimum(tokens, 46))
        tokens[:, 5], tokens[0, 8], tokens[1, 3] = 47, 47, 49
    with torch.no_grad():
        told = model(torch.tensor(tokens).long(), output_hidden_states=True)
    hidden, pooled = jax.jit(tower.apply)({"params": params}, tokens)
    np.testing.assert_allclose(hidden, told.last_hidden_state, **LOOSER)
    np.testing.assert_allclose(pooled, told.pooler_output, **LOOSER)


def test_masks_and_earlier_layers_are_transformers():
    model = randomise(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)))
    tower, params = interop.text_from_transformers(arrays(model), model.config.to_dict())
    tokens = texts()[:, :10]  # shorter than the positions
    mask = np.ones_like(tokens)
    mask[0, 7:] = mask[1, 4:] = 0
    mask[2, 2] = 0
    with torch.no_grad():
        told = model(torch.tensor(tokens).long(), torch.tensor(mask).long(), output_hidden_states=True)
        normed = getattr(model, "text_model", model).final_layer_norm(told.hidden_states[-2])
    for layer in (-1, -2, -3):
        hidden, pooled = tower.apply({"params": params}, tokens, mask, layer, False)
        np.testing.assert_allclose(hidden, told.hidden_states[layer], **LOOSER)
        np.testing.assert_allclose(pooled, told.pooler_output, **LOOSER)
    np.testing.assert_allclose(tower.apply({"params": params}, tokens, mask, -2)[0], normed, **LOOSER)


def test_folders_travel_both_ways(tmp_path):
    model = clip_model("gelu", 2)
    model.save_pretrained(tmp_path / "theirs")
    clip, params = interop.load_clip(tmp_path / "theirs")
    interop.save_clip(tmp_path / "ours", clip, params)
    back = transformers.CLIPModel.from_pretrained(tmp_path / "ours")
    state = model.state_dict()
    assert set(back.state_dict()) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in back.state_dict().items())
    again, returned = interop.load_clip(tmp_path / "ours")
    assert again == clip
    jax.tree.map(np.testing.assert_array_equal, params, returned)
    tokens = torch.tensor(texts()).long()  # the written config asks for the same network
    with torch.no_grad():
        told, found = (one.eval().get_text_features(input_ids=tokens).pooler_output for one in (model, back))
    assert torch.equal(told, found)


def test_text_towers_travel_under_both_namings(tmp_path):
    model = randomise(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)))
    model.save_pretrained(tmp_path / "theirs")
    tower, params = interop.load_text(tmp_path / "theirs")
    config = model.config.to_dict()
    bare = interop.text_to_transformers(params, tower, prefix="")
    named = interop.text_to_transformers(params, tower)
    named["text_model.embeddings.position_ids"] = np.arange(12)[None]  # old files hold this constant too
    for state in (bare, named):
        other, found = interop.text_from_transformers(state, config)
        assert other == tower
        jax.tree.map(np.testing.assert_array_equal, params, found)
    interop.save_text(tmp_path / "ours", tower, params)
    back = transformers.CLIPTextModel.from_pretrained(tmp_path / "ours")
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in back.state_dict().items())


def test_the_text_tower_of_a_whole_clip_is_read_alone():
    model = clip_model()
    clip, params = interop.clip_from_transformers(arrays(model), model.config.to_dict())
    tower, found = interop.text_from_transformers(arrays(model), model.config.to_dict())
    assert tower == clip.text
    jax.tree.map(np.testing.assert_array_equal, params["text"], found)


def test_configs_of_old_files_count_their_dict_first():
    told = {"text_config": dict(TEXT), "vision_config": IMAGE, "text_config_dict": {**TEXT, "hidden_size": 64}}
    told["vision_config_dict"] = None
    peer = transformers.CLIPConfig(**told)
    clip = interop.clip_network(told)
    assert clip.text.width == 64 == transformers.CLIPModel(peer).text_model.config.hidden_size


@pytest.mark.parametrize("shape", [(32, 32, 3), (50, 31, 3), (20, 37, 3), (19, 90, 3), (224, 300, 3)])
@pytest.mark.parametrize("size", [24, 33])
def test_preprocessing_is_transformers(shape, size):
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    told = processor(images=list(images), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    found = (crop_square(images, size) / 255 - np.asarray(MEAN)) / np.asarray(STD)
    np.testing.assert_allclose(found, told, atol=1e-5)
