"""Safetensors files read and written here, against the package of that name; what is damaged is one sentence."""

from __future__ import annotations

import json
import os
import struct

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxgen.errors import UserError
from jaxgen.interop import torch_file
from jaxgen.interop.diffusers_files import MODEL, Entry, open_weights, read_header, read_json, save_weights

FILE = f"{MODEL}.safetensors"


def tensors() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    return {
        "a.weight": chance.standard_normal((3, 4, 2, 2)).astype(np.float32),
        "a.bias": chance.standard_normal(3).astype(np.float16),
        "b": np.arange(6).reshape(2, 3),
        "scalar": np.asarray(3.5, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }


def test_files_of_the_package_are_read(tmp_path):
    safetensors.numpy.save_file(tensors(), tmp_path / FILE, {"format": "pt"})
    found = open_weights(tmp_path)
    assert set(found) == set(tensors()) and found.size == sum(value.nbytes for value in tensors().values())
    for name, value in tensors().items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_the_package_reads_what_is_written(tmp_path):
    entries = [Entry(name, jnp.asarray(value), tuple(range(value.ndim))) for name, value in tensors().items()]
    entries.append(Entry("turned", tensors()["b"], (1, 0), (1, 1)))
    save_weights(tmp_path / FILE, entries)
    found = safetensors.numpy.load_file(tmp_path / FILE)
    for name, value in tensors().items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(found["turned"], tensors()["b"].T[:, :, None, None])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_change_for_floats_only(dtype, tmp_path):
    save_weights(tmp_path / FILE, [Entry("w", np.linspace(0, 1, 5), (0,)), Entry("n", np.arange(3), (0,))], dtype)
    found = open_weights(tmp_path)
    assert found["w"].dtype == jnp.dtype(dtype) and found["n"].dtype == np.int64
    np.testing.assert_allclose(found["w"].astype(np.float32), np.linspace(0, 1, 5), atol=1e-2)


def test_several_files_and_half_precision_variants(tmp_path):
    shards = [dict(list(tensors().items())[:2]), dict(list(tensors().items())[2:])]
    names = {}
    for i, shard in enumerate(shards):
        file = f"{MODEL}-{i}.safetensors"
        safetensors.numpy.save_file(shard, tmp_path / file)
        names |= dict.fromkeys(shard, file)
    index = tmp_path / f"{FILE}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for name, value in tensors().items():
        np.testing.assert_array_equal(open_weights(tmp_path)[name], value)
    index.write_text(json.dumps({"weight_map": {**names, "more": names["b"]}}))
    with pytest.raises(UserError, match="promises 'more'"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {**names, "more": "gone.safetensors"}}))
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        open_weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(UserError, match="weight_map"):
        open_weights(tmp_path)
    index.unlink()
    safetensors.numpy.save_file(shards[0], tmp_path / f"{MODEL}.fp16.safetensors")
    assert set(open_weights(tmp_path)) == set(shards[0])


def header(told: dict, data: bytes = b"") -> bytes:
    text = json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 40),
        struct.pack("<Q", 2) + b"{]",
        header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"0000"),
        header({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"00000000"),
        header({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"00000000"),
        header({"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, b"00000000"),
        header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, b"00000000"),
        header({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b"00000000"),
        header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"00000000"),
        header({n: {"dtype": "F32", "shape": [2], "data_offsets": [4 * n, 4 * n + 8]} for n in (0, 1)}, b"0" * 12),
        struct.pack("<Q", 10**5) + b"[" * 10**5,
        struct.pack("<Q", 4) + b"\xff\xfe\x00\x01",
        header({"w": {"shape": [2]}}),
        header({"w": 3}),
    ],
)
def test_damaged_files_are_one_sentence(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or no safetensors file"):
        open_weights(tmp_path)


def test_a_header_that_lies_is_told_with_what_was_found(tmp_path):
    (tmp_path / FILE).write_bytes(header({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"0" * 8))
    with pytest.raises(UserError, match=r"'w' of shape \(3,\) in F32 needs 12 bytes, and has 8"):
        open_weights(tmp_path)
    (tmp_path / FILE).write_bytes(header({"w": {"dtype": "F32", "shape": "two", "data_offsets": [0, 8]}}, b"0" * 8))
    with pytest.raises(UserError, match="tensor 'w': 'shape' is \"two\", where a list is needed"):
        open_weights(tmp_path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "U16", "F7"])
def test_another_number_type_is_named_and_not_called_damaged(kind, tmp_path):
    (tmp_path / FILE).write_bytes(header({"w": {"dtype": kind, "shape": [8], "data_offsets": [0, 8]}}, b"00000000"))
    with pytest.raises(
        UserError, match=f"'w' holds numbers of the type '{kind}'; read are F64, F32, F16, BF16"
    ) as told:
        open_weights(tmp_path)
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (f"{MODEL}.non_ema.safetensors", "has .*non_ema.safetensors, but no .*rename the file"),
        (f"{MODEL}.fp16.bin", "fp16.bin only, which is not read: save the model again with safe_serialization"),
        ("pytorch_model.bin", "pytorch_model.bin only, which is not read"),
        ("pytorch_model.bin.index.json", "index.json only, which is not read"),
        ("model.ckpt", "model.ckpt only, which is not read"),
    ],
)
def test_files_of_other_names_are_refused_by_name(file, words, tmp_path):
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(UserError, match=words):
        open_weights(tmp_path)


@pytest.mark.parametrize("value", [3, [], {}, {"b": 3}, {"b": ["x"]}, {"b": None}])
def test_an_index_of_other_types_is_named(value, tmp_path):
    (tmp_path / f"{FILE}.index.json").write_text(json.dumps({"weight_map": value}))
    with pytest.raises(UserError, match="weight_map"):
        open_weights(tmp_path)


@pytest.mark.parametrize("read", [read_header, torch_file.read])
def test_weights_that_are_a_pipe_are_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(UserError, match=r"is a pipe \(FIFO\), not a file"):
        read(tmp_path / FILE)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=FILE):
        open_weights(tmp_path)
    (tmp_path / f"{MODEL}.bin").write_bytes(b"")
    with pytest.raises(UserError, match="safe_serialization"):
        open_weights(tmp_path)
    with pytest.raises(UserError, match="which says much"):
        read_json(tmp_path / "a.json", "says much")
    for content in ("{", "[]", "[" * 10**5, "\ufeff[1]"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match="not valid JSON|it holds|nested too deeply"):
            read_json(tmp_path / "a.json", "says much")


def test_a_file_that_was_cut_after_it_was_opened(tmp_path):
    safetensors.numpy.save_file({"w": np.zeros(64)}, tmp_path / FILE)
    found = open_weights(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-8])
    with pytest.raises(UserError, match="ends before its last tensor"):
        found["w"]


def test_types_that_the_format_lacks(tmp_path):
    with pytest.raises(UserError, match="complex64"):
        save_weights(tmp_path / FILE, [Entry("w", np.zeros(2, np.complex64), (0,))])
