"""Towers of a CLIP run against CLIPModel of transformers, its image processor and tokenizer, from folders both ways."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and transformers: install the extra 'parity'")
import transformers  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402

from jaxgen.data.sources import caption_shapes  # noqa: E402
from jaxgen.interop.clip_towers import load_towers, save_towers  # noqa: E402
from jaxgen.methods.contrastive.clip import CLIP  # noqa: E402
from jaxgen.networks.pretrained.clip import ImageTower, TextTower  # noqa: E402

pytestmark = pytest.mark.parity

IMAGE = ImageTower(size=16, patch=8, width=24, depth=2, heads=3, mlp_features=40, projection=12)
TEXT = TextTower(
    vocabulary=caption_shapes.PHRASE_TOKENIZER.size, length=16, width=16, depth=2, heads=2, mlp_features=32, end=1,
    projection=12,
)  # fmt: skip
METHOD = CLIP(IMAGE, TEXT, (16, 16, 3))
CAPTIONS = ["a red circle at the top left", "There is a CRIMSON disc in the upper left corner!", "", "on the left side"]


def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def embeddings(method, params, tokens):
    run = jax.jit(lambda p, x, t: (method.embed_image(p, x), method.embed_text(p, t)))
    return run(params, pictures().astype(np.float32) / 127.5 - 1, tokens)


def told(folder, tokens, **options):
    """What transformers computes, with the image processor of the folder, or of other numbers."""
    processor = CLIPImageProcessorPil.from_pretrained(folder) if not options else CLIPImageProcessorPil(**options)
    pixels = processor(images=list(pictures()), return_tensors="pt")["pixel_values"]
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(pixel_values=pixels, input_ids=torch.tensor(tokens).long())
    return found


def test_what_is_trained_here_is_used_there(tmp_path):
    batch = {"image": pictures().astype(np.float32), "tokens": caption_shapes.PHRASE_TOKENIZER(CAPTIONS)}
    shapes = jax.eval_shape(lambda b: METHOD.init(jax.random.key(0), b, 0, {}, {}, {})[0], batch)
    chance = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.asarray(0.3 * chance.normal(size=x.shape), np.float32), shapes)
    save_towers(tmp_path, IMAGE, TEXT, params, caption_shapes.PHRASE_TOKENIZER)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = words(CAPTIONS, padding="max_length", max_length=16)["input_ids"]
    np.testing.assert_array_equal(ids, batch["tokens"])
    assert words.decode(words("a red mauve")["input_ids"]).split()[2] == "<unknown>"
    theirs = told(tmp_path, batch["tokens"])
    image, text = embeddings(METHOD, params, batch["tokens"])
    np.testing.assert_allclose(image, theirs.image_embeds, atol=1e-4)
    np.testing.assert_allclose(text, theirs.text_embeds, atol=1e-4)
    scale = np.exp(params["logit_scale"]["logit_scale"])
    np.testing.assert_allclose(scale * image @ text.T, theirs.logits_per_image, atol=1e-4)


@pytest.mark.parametrize("numbers", [None, ([0.1, 0.5, 0.9], [0.2, 0.3, 1.4])])
def test_what_is_published_is_read_with_its_normalisation(tmp_path, numbers):
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 0},
        vision_config={"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
                       "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    if numbers:
        sizes |= {"image_mean": numbers[0], "image_std": numbers[1]}
        CLIPImageProcessorPil(**sizes).save_pretrained(tmp_path)
    image, text, params = load_towers(tmp_path)
    tokens = caption_shapes.PHRASE_TOKENIZER(CAPTIONS)
    theirs = told(tmp_path, tokens, **sizes)
    ours = embeddings(CLIP(image, text, (16, 16, 3)), params, tokens)
    np.testing.assert_allclose(ours[0], theirs.image_embeds, atol=1e-4)
    np.testing.assert_allclose(ours[1], theirs.text_embeds, atol=1e-4)
