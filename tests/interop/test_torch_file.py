"""Reading files of torch.save: both formats, written here opcode by opcode, and files that mean harm or are broken."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop import torch_file

NUMBERS = np.arange(24, dtype=np.float32) / 7


def constant(value) -> bytes:
    """The opcodes that push a value."""
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str, kind: str = "FloatStorage", count: int = 24, view: bytes = b"") -> bytes:
    told = constant("storage") + name("torch", kind) + constant(key) + constant("cpu") + constant(count)
    return b"(" + told + view + b"tQ"


def tensor(where: bytes, offset: int, size: tuple, stride: tuple, rebuild: str = "_rebuild_tensor_v2") -> bytes:
    flags = constant(False) + name("collections", "OrderedDict") + b")R"
    arguments = where + constant(offset) + constant(size) + constant(stride) + flags
    return name("torch._utils", rebuild) + b"(" + arguments + b"tR"


def parameter(data: bytes) -> bytes:
    """As torch 0.1 wrote one: an object made anew, then its flags."""
    return name("torch.nn.parameter", "Parameter") + b"(" + data + b"t\x81" + constant((True, False, None)) + b"b"


def mapping(**entries: bytes) -> bytes:
    return b"}(" + b"".join(constant(key) + value for key, value in entries.items()) + b"u"


def write_zip(path, told: bytes, storages: dict[str, bytes], order: bytes = b"little") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + told + b".")
        archive.writestr("model/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)


def write_legacy(path, told: bytes, storages: dict[str, bytes], width: int = 4) -> None:
    file = io.BytesIO()
    for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(head, file, protocol=2)
    file.write(b"\x80\x02" + told + b".")
    pickle.dump(list(storages), file, protocol=2)
    for data in storages.values():
        file.write(struct.pack("<q", len(data) // width) + data)
    path.write_bytes(file.getvalue())


FORMATS = pytest.mark.parametrize("write", [write_zip, write_legacy])


@FORMATS
def test_tensors_come_with_their_strides_and_share_what_they_shared(write, tmp_path):
    told = mapping(
        rows=tensor(storage("a"), 0, (4, 6), (6, 1)),
        columns=tensor(storage("a"), 0, (6, 4), (1, 6)),
        every_third=tensor(storage("a"), 2, (7,), (3,), "_rebuild_tensor"),
        one=tensor(storage("a"), 5, (), ()),
        none=tensor(storage("a"), 0, (0, 3), (3, 1)),
        old=parameter(tensor(storage("a"), 6, (6,), (1,))),
        epoch=constant(3),
        inner=mapping(other=tensor(storage("b"), 1, (2,), (1,))),
    )
    path = tmp_path / "a.pth"
    write(path, told, {"a": NUMBERS.tobytes(), "b": np.float32([7, 8, 9]).tobytes()})
    found = torch_file.read(path)
    assert set(found) == {"rows", "columns", "every_third", "one", "none", "old", "inner.other"}
    np.testing.assert_array_equal(found["rows"], NUMBERS.reshape(4, 6))
    np.testing.assert_array_equal(found["columns"], NUMBERS.reshape(4, 6).T)
    np.testing.assert_array_equal(found["every_third"], NUMBERS[2::3][:7])
    np.testing.assert_array_equal(found["one"], NUMBERS[5])
    np.testing.assert_array_equal(found["old"], NUMBERS[6:12])
    np.testing.assert_array_equal(found["inner.other"], [8, 9])
    assert found["none"].shape == (0, 3) and found["one"].shape == ()
    assert np.shares_memory(found["rows"], found["old"]) and found["rows"].dtype == np.float32


@pytest.mark.parametrize(
    "kind,values",
    [
        ("HalfStorage", np.float16([0.5, -2])),
        ("DoubleStorage", np.float64([1e-300, 3])),
        ("LongStorage", np.int64([-1, 2**40])),
        ("IntStorage", np.int32([-1, 2**30])),
        ("ByteStorage", np.uint8([0, 255])),
        ("BoolStorage", np.bool_([True, False])),
    ],
)
@FORMATS
def test_types_are_kept(write, kind, values, tmp_path):
    told = mapping(x=tensor(storage("k", kind, 2), 0, (2,), (1,)))
    options = {"width": values.itemsize} if write is write_legacy else {}
    write(tmp_path / "x.pth", told, {"k": values.tobytes()}, **options)
    found = torch_file.read(tmp_path / "x.pth")["x"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    values = np.float32([1.5, -0.0078125])
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    told = mapping(x=tensor(storage("k", "BFloat16Storage", 2), 0, (2,), (1,)))
    write_zip(tmp_path / "x.pth", told, {"k": upper.tobytes()})
    np.testing.assert_array_equal(torch_file.read(tmp_path / "x.pth")["x"].astype(np.float32), values)


def test_numbers_of_a_big_endian_machine(tmp_path):
    told = mapping(x=tensor(storage("a"), 0, (24,), (1,)))
    write_zip(tmp_path / "x.pth", told, {"a": NUMBERS.astype(">f4").tobytes()}, order=b"big")
    np.testing.assert_array_equal(torch_file.read(tmp_path / "x.pth")["x"], NUMBERS)


def test_a_view_of_an_old_file_begins_where_it_says(tmp_path):
    view = constant(("v", 4, 8))
    told = mapping(x=tensor(storage("a", view=view), 1, (3,), (1,)))
    write_legacy(tmp_path / "x.pth", told, {"a": NUMBERS.tobytes()})
    np.testing.assert_array_equal(torch_file.read(tmp_path / "x.pth")["x"], NUMBERS[5:8])


@FORMATS
@pytest.mark.parametrize(
    "module,attribute", [("os", "system"), ("builtins", "eval"), ("numpy", "load"), ("torch", "load")]
)
def test_a_file_cannot_call_anything(write, module, attribute, tmp_path):
    marker = tmp_path / "marker"
    call = name(module, attribute) + b"(" + constant(f"touch {marker}") + b"tR"
    write(tmp_path / "evil.pth", mapping(x=call), {})
    with pytest.raises(UserError, match=rf"evil\.pth asks for {module}\.{attribute}"):
        torch_file.read(tmp_path / "evil.pth")
    assert not marker.exists()


@FORMATS
@pytest.mark.parametrize(
    "offset,size,stride", [(1, (24,), (1,)), (0, (5, 6), (6, 1)), (-4, (2,), (1,)), (0, (2,), (-1,))]
)
def test_a_tensor_outside_its_storage_is_refused(write, offset, size, stride, tmp_path):
    write(tmp_path / "x.pth", mapping(x=tensor(storage("a"), offset, size, stride)), {"a": NUMBERS.tobytes()})
    with pytest.raises(UserError, match=r"x\.pth is damaged"):
        torch_file.read(tmp_path / "x.pth")


@FORMATS
def test_a_file_cut_short_is_refused(write, tmp_path):
    path = tmp_path / "cut.pth"
    write(path, mapping(x=tensor(storage("a"), 0, (24,), (1,))), {"a": NUMBERS.tobytes()})
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.pth"):
            torch_file.read(path)


@FORMATS
def test_damage_is_one_sentence_whatever_byte_it_hits(write, tmp_path):
    path = tmp_path / "hit.pth"
    write(path, mapping(x=tensor(storage("a"), 0, (24,), (1,))), {"a": NUMBERS.tobytes()})
    whole = path.read_bytes()
    chance = np.random.default_rng(0)
    refused = 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= int(chance.integers(1, 256))
        path.write_bytes(broken)
        try:
            torch_file.read(path)
        except UserError as error:
            refused += 1
            assert "hit.pth" in str(error)
    assert refused > len(whole) // 3


def test_what_is_no_such_file_is_named(tmp_path):
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"page\.pth is damaged, or no file of torch\.save"):
        torch_file.read(tmp_path / "page.pth")
    with pytest.raises(UserError, match=r"none\.pth cannot be read"):
        torch_file.read(tmp_path / "none.pth")
    write_zip(tmp_path / "empty.pth", mapping(epoch=constant(1)), {})
    with pytest.raises(UserError, match="holds no tensors"):
        torch_file.read(tmp_path / "empty.pth")
