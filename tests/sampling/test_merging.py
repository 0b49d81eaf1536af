"""Concepts of Custom Diffusion are merged in closed form: their values are kept, and the rest changes least."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
import scipy.linalg
import tiny
import tiny_finetune
import tiny_latents
import tiny_pipeline

from jaxgen.config import section
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError
from jaxgen.interop.adapters.custom_diffusion import FILE, read_custom_diffusion, write_custom_diffusion
from jaxgen.interop.adapters.learned_embeds import write_embeds
from jaxgen.interop.diffusers_pipeline import read_params
from jaxgen.methods.grafts.low_rank import layers
from jaxgen.runs.tuning.files import layer_names
from jaxgen.sampling.grafts.adapted import adapted
from jaxgen.sampling.grafts.merge import _open_base, _run_of, _tuned_with, main
from jaxgen.sampling.grafts.merging import KEYS_AND_VALUES, Concept, merge, merged_kernel
from jaxgen.sampling.grafts.requests import read_adapter

CHANCE = np.random.default_rng(0)


def test_merged_weights_keep_the_values_and_are_the_nearest_on_other_features():
    """Beside all solutions of the constraint, a particular one and the null space, searched by least squares."""
    old, c, v, others = (CHANCE.standard_normal(shape) for shape in ((12, 5), (4, 12), (4, 5), (60, 12)))
    found = merged_kernel(old, c, v, others)
    np.testing.assert_allclose(c @ found, v, atol=1e-9)
    particular, free = scipy.linalg.lstsq(c, v)[0], scipy.linalg.null_space(c)
    step = scipy.linalg.lstsq(others @ free, others @ (old - particular))[0]
    np.testing.assert_allclose(found, particular + free @ step, atol=1e-6)
    least = np.linalg.norm(others @ (found - old))
    for _ in range(20):  # every other solution is farther
        other = found + 1e-2 * free @ CHANCE.standard_normal((8, 5))
        np.testing.assert_allclose(c @ other, v, atol=1e-9)
        assert np.linalg.norm(others @ (other - old)) > least


def test_a_direction_that_no_caption_has_is_changed_before_others():
    """Of two features that keep a value, the one which no other caption has takes the change."""
    old, others = CHANCE.standard_normal((3, 2)), CHANCE.standard_normal((9, 3))
    others[:, 2] = 0
    found = merged_kernel(old, np.array([[1.0, 1.0, 1.0]]), np.array([[5.0, -5.0]]), others)
    np.testing.assert_allclose(found.sum(axis=0), [5, -5], atol=1e-6)
    np.testing.assert_allclose(found[:2], old[:2], atol=1e-6)


WORDS = ("a", "red", "cat", "dog", "small", "big")
OTHERS = [f"{a} {b}" for a in WORDS for b in WORDS] + [f"a {a} {b}" for a in WORDS for b in WORDS]


@pytest.fixture(scope="module")
def made():
    """A model that reads texts, its tokenizer, and two concepts on it."""
    method, model = tiny_latents.make(text=True), tiny_latents.begun(text=True)
    kernels = {f"{path}/kernel": kernel for path, kernel in layers(model.params["denoiser"]).items()}
    paths = [path for path in kernels if KEYS_AND_VALUES.search(path)]
    concepts = []
    for word, text in (("<one>", "a <one> cat"), ("<two>", "big <TWO> dog")):
        own = {p: np.asarray(kernels[p]) + 0.3 * CHANCE.standard_normal(kernels[p].shape) for p in paths}
        leaves = {path: kernel.astype(np.float32) for path, kernel in own.items()}
        concepts.append(Concept(word[1:4], leaves, {word: CHANCE.standard_normal((1, 8)).astype(np.float32)}, [text]))
    return method, model.params, WordTokenizer(WORDS, 5), concepts


def told(method, params, concepts, tokenizer, texts):
    """The features of texts with the words of concepts, whose ids follow the vocabulary; by the text encoder itself."""
    tower, table = method.text, params["text"]["token"]["embedding"]
    rows = np.concatenate([rows for concept in concepts for rows in concept.words.values()])
    known = tokenizer.with_words({word: (9 + i,) for i, concept in enumerate(concepts) for word in concept.words})
    larger = {**params["text"], "token": {"embedding": jnp.concatenate([table, rows])}}
    tokens = known(texts)
    with jax.default_matmul_precision("highest"):
        return tokens, np.asarray(tower.clone(vocabulary=9 + len(rows)).apply({"params": larger}, tokens, tokens != 0))


@pytest.mark.nightly
def test_each_concept_gives_for_its_words_what_it_gave_alone(made):
    method, params, tokenizer, concepts = made
    merged = merge(method, params, tokenizer, concepts, OTHERS)
    assert merged.tokens == 6 and merged.error < 1e-5 and len(merged.leaves) == len(concepts[0].leaves) == 6
    kernels = {f"{path}/kernel": np.asarray(kernel) for path, kernel in layers(params["denoiser"]).items()}
    for concept in concepts:
        tokens, features = told(method, params, concepts, tokenizer, concept.captions)
        kept = features[0, 1 : int(np.argmax(tokens[0] == 1)) + 1]  # from the word to the end
        assert len(kept) == 3
        for path, kernel in concept.leaves.items():
            wanted = kept @ kernel
            np.testing.assert_allclose(kept @ merged.leaves[path], wanted, atol=1e-5 * np.abs(wanted).max())
            assert np.abs(kept @ kernels[path] - kept @ kernel).max() > 0.05
    tokens, features = told(method, params, concepts, tokenizer, OTHERS)
    rows = np.concatenate([row[: int(np.argmax(ids == 1)) + 1] for ids, row in zip(tokens, features, strict=True)])
    assert merged.others == len(rows)

    def share(leaves):
        change = sum(np.square(rows @ (leaves[path] - kernels[path])).sum() for path in leaves)
        return (change / sum(np.square(rows @ kernels[path]).sum() for path in leaves)) ** 0.5

    np.testing.assert_allclose(merged.change, share(merged.leaves), rtol=1e-4)
    np.testing.assert_allclose(merged.alone, [share(concept.leaves) for concept in concepts], rtol=1e-4)


def test_one_concept_alone_keeps_its_values_and_changes_others_no_more_than_it_did(made):
    method, params, tokenizer, concepts = made
    merged = merge(method, params, tokenizer, concepts[:1], OTHERS)
    assert merged.tokens == 3 and merged.error < 1e-5 and merged.change < merged.alone[0]


def test_what_cannot_be_merged_is_one_sentence(made):
    method, params, tokenizer, (one, two) = made
    for concepts, said in (
        ([dataclasses.replace(one, leaves={"conv_in/kernel": np.zeros((3, 3, 4, 8))}), two], "one tuned 'conv_in"),
        ([one, dataclasses.replace(two, words=one.words)], "one and two both teach the word '<one>'"),
        ([one, dataclasses.replace(two, captions=["a cat"])], "The caption 'a cat' of two has none of its words"),
        (
            [
                dataclasses.replace(one, captions=["<one> cat", "<one> big red"]),
                dataclasses.replace(two, captions=["<two> cat", "<two> big red"]),
            ],
            "no keys and values of 8 features keep",
        ),
    ):
        with pytest.raises(UserError, match=said):
            merge(method, params, tokenizer, concepts, OTHERS)


def write_concept(folder, word, kernels, names, seed):
    chance = np.random.default_rng(seed)
    leaves = {p: np.asarray(k) + 0.3 * chance.standard_normal(k.shape).astype(np.float32) for p, k in kernels.items()}
    folder.mkdir()
    write_custom_diffusion(folder / FILE, leaves, names)
    write_embeds(folder / "learned_embeds.safetensors", {word: chance.standard_normal((1, 16)).astype(np.float32)})
    return leaves


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of diffusers, files of two concepts on it, captions, and what each concept learned."""
    place = tmp_path_factory.mktemp("merge")
    tiny_pipeline.write(place / "base")
    method, params, _, names = _open_base(str(place / "base"), ())
    kernels = {f"{path}/kernel": kernel for path, kernel in layers(params["denoiser"]).items()}
    kernels = {path: kernel for path, kernel in kernels.items() if KEYS_AND_VALUES.search(path)}
    learned = [write_concept(place / name, "<new1>", kernels, names, i) for i, name in enumerate("ab")]
    (place / "prompts.txt").write_text("a <new1> cat\n\nred <new2> dog\n")
    words = ("red", "cat", "dog", "x", "7", "!")
    (place / "captions.txt").write_text("\n".join(f"{a} {b} {c}" for a in words for b in words for c in words))
    return place, method, params, names, learned


def call(place, *more):
    texts = [f"--prompts={place / 'prompts.txt'}", f"--regularisation={place / 'captions.txt'}"]
    return [str(place / "a"), f"{place / 'b'}:<new2>", *texts, f"--base={place / 'base'}", *more]


@pytest.mark.slow
def test_files_of_two_concepts_become_one_that_adapters_read(place, tmp_path, capsys):
    place, method, params, names, learned = place
    out = tmp_path / "out"
    assert main(call(place, f"--out={out}")) == 0
    said = capsys.readouterr().out
    assert "8 keys and values of 2 concepts" in said and "6 tokens of the concepts keep" in said
    flags = [f"custom_diffusion:{out}", *(f"embedding:{out}/{i}.learned_embeds.safetensors" for i in (1, 2))]
    changed, on, words = adapted(method, params, [read_adapter(flag) for flag in flags])
    assert [*words] == ["<new1>", "<new2>"]
    tokens = _open_base(str(place / "base"), ())[2].with_words(words)(["a <new1> cat", "red <new2> dog"])
    with jax.default_matmul_precision("highest"):
        context = np.asarray(changed.text.apply({"params": on["text"]}, tokens)[0])
    merged = read_custom_diffusion(out, names, "a test")
    for row, ids, leaves in zip(context, words.values(), learned, strict=True):
        first = int(np.argmax(tokens[len(tokens) - 1 if leaves is learned[1] else 0] == ids[0]))
        kept = row[first : first + 3]
        for path, kernel in leaves.items():
            np.testing.assert_allclose(kept @ merged[path], kept @ kernel, atol=2e-5 * np.abs(kept @ kernel).max())


@pytest.mark.nightly
def test_bad_concepts_and_captions_are_one_sentence_and_nothing_is_written(place, tmp_path, capsys):
    place = place[0]
    (tmp_path / "both.txt").write_text("a <new1> <new2>\n")
    (tmp_path / "none.txt").write_text("a cat\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bare").mkdir()
    sound, out = call(place), f"--out={tmp_path / 'out'}"
    cases = {
        "there is no such folder; name a run": [str(tmp_path / "gone"), *sound[1:]],
        "has no pytorch_custom_diffusion_weights.safetensors, and no run": [str(tmp_path / "bare"), *sound[1:]],
        "a and .*b both teach the word '<new1>'": [sound[0], str(place / "b"), *sound[2:]],
        "has words of several concepts": tiny.replaced(sound, f"--prompts={tmp_path / 'both.txt'}"),
        "There is no caption of .*a with its word <new1>": tiny.replaced(sound, f"--prompts={tmp_path / 'none.txt'}"),
        "--regularisation=.* has no text in it": tiny.replaced(sound, f"--regularisation={tmp_path / 'empty.txt'}"),
        "give --base=": sound[:-1],
        "neither a run nor a folder that diffusers wrote": tiny.replaced(sound, f"--base={tmp_path / 'bare'}"),
    }
    for told, words in cases.items():
        assert main([*words, out]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("jaxgen: ") and re.search(told, line), line
    assert not (tmp_path / "out").exists()


def test_layers_that_diffusers_has_not_are_called_by_their_paths(made, tmp_path):
    method, params, _, (one, _) = made
    names = layer_names(method, params)["denoiser"]
    assert names.prefix == "denoiser"
    write_custom_diffusion(tmp_path / FILE, one.leaves, names)
    found = read_custom_diffusion(tmp_path, names, "--adapter")
    assert found.keys() == one.leaves.keys()
    for path, kernel in one.leaves.items():
        np.testing.assert_array_equal(found[path], kernel)
    changed, on, _ = adapted(method, params, [read_adapter(f"custom_diffusion:{tmp_path}")])
    path = next(iter(one.leaves))
    np.testing.assert_array_equal(layers(on["denoiser"])[path.removesuffix("/kernel")], one.leaves[path])
    with pytest.raises(UserError, match="'conv_in/kernel' is no parameter of a linear layer"):
        write_custom_diffusion(tmp_path / "g.safetensors", {"conv_in/kernel": np.zeros((3, 3, 4, 8))}, names)


@pytest.mark.slow
def test_runs_are_merged_with_the_captions_they_were_tuned_with(tmp_path, capsys):
    tiny_pipeline.write(tmp_path / "base")
    for name, word, like in (("a", "<one>", "cat"), ("b", "<two>", "dog")):
        tiny_finetune.write_pictures(tmp_path / "pictures" / name, captions=False)
        for i in range(24 if name == "b" else 0):  # captions beside pictures, and in the config of the other run
            (tmp_path / "pictures" / name / f"{i}.txt").write_text(f"a {'red ' * (i % 2)}{word} cat")
        config = tiny_finetune.finetune_config(tmp_path / "base", tmp_path / "pictures" / name)
        config.method = section(
            name="tuned",
            grafts=section(
                kv=section(name="leaves", where=r"cross_attention/(key|value)/"),
                token=section(name="token_rows", word=word, initial=like),
            ),
        )
        config.data.captions = ("a {} cat",) if name == "a" else ()
        config.optimizer.learning_rate = 3e-2
        running.run(config, tmp_path / name, 8)
    words = ("red", "cat", "dog", "x", "7", "!")
    (tmp_path / "captions.txt").write_text("\n".join(f"{a} {b} {c}" for a in words for b in words for c in words))
    runs = [str(tmp_path / name) for name in "ab"]
    assert main([*runs, f"--regularisation={tmp_path / 'captions.txt'}", f"--out={tmp_path / 'out'}"]) == 0
    assert "the word <two> of 1 vectors" in capsys.readouterr().out
    config = _run_of(runs[1], ())
    assert _tuned_with(config, "<two>") == ["a <two> cat", "a red <two> cat"]
    assert _tuned_with(config, "<one>") == []
    old = layers(read_params(tmp_path / "base")["denoiser"])
    names = _open_base(str(tmp_path / "base"), ())[3]
    for path, kernel in read_custom_diffusion(tmp_path / "out", names, "a test").items():
        assert np.abs(kernel - old[path.removesuffix("/kernel")]).max() > 1e-3
    other = [f"--regularisation={tmp_path / 'captions.txt'}", f"--out={tmp_path / 'new'}"]
    assert main([str(tmp_path / "base"), runs[0], *other]) == 2
    assert "has no pytorch_custom_diffusion_weights.safetensors, and no run" in capsys.readouterr().err
