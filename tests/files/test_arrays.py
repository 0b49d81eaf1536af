"""Arrays from files: right values, and one sentence for what is damaged, hostile or too large."""

from __future__ import annotations

import os
import pathlib
import re
import time
import zipfile

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.files import arrays
from jaxgen.files.arrays import Archive, read_npy, read_npz, texts

ROOT = pathlib.Path(__file__).resolve().parents[2]
VALUES = np.arange(24.0).reshape(2, 3, 4)


RAW = VALUES.tobytes()


def npy(descr="<f8", shape="(2, 3, 4)", data=RAW, version=1):
    """The bytes of an .npy file with any header."""
    descr = descr if descr.startswith("[") else repr(descr)
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = header.encode().ljust(-(-(len(header) + 11) // 64) * 64 - 11) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "values",
    [VALUES, np.asfortranarray(VALUES), VALUES.astype(">f4"), VALUES.astype(">i2")[:, ::2], np.array(3), VALUES[:0],
     np.array(["é", "bc"]), np.array([b"x", b"yz"]), VALUES > 3, VALUES.astype(np.float16)],
    ids=lambda values: f"{values.dtype.str}{list(values.shape)}",
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_values_come_back_as_they_were(tmp_path, values, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, values)
    found = read_npy(path) if save is np.save else read_npz(path)["arr_0"]
    assert found.shape == values.shape and found.tolist() == values.tolist()
    assert found.dtype == values.dtype.newbyteorder("=") and found.dtype.isnative and found.flags.writeable


@pytest.mark.parametrize("fortran", [False, True])
def test_rows_are_read_in_one_pass(tmp_path, fortran):
    values = np.arange(60, dtype=">i4").reshape(10, 2, 3)
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(values) if fortran else values)
    with Archive(tmp_path / "a.npz") as opened:
        parts = list(opened.rows("x", [np.array([0, 3]), np.array([4, 9, 9])]))
    assert [part.tolist() for part in parts] == [values[[0, 3]].tolist(), values[[4, 9, 9]].tolist()]


HEADERS = {
    "tebibytes": (npy(shape="(1099511627776, 1024)"), "claims 9,007,199,254,740,992 bytes"),
    "more than stored": (npy(shape="(3, 3, 4)"), "claims 288 bytes, .* where 192 are stored"),
    "less than stored": (npy(shape="(1, 3, 4)"), "claims 96 bytes"),
    "beyond 64 bits": (npy(shape=f"({2**40}, {2**40}, {2**40})"), "claims"),
    "a negative side": (npy(shape="(-2, 3, 4)"), r"claims the shape \(-2, 3, 4\)"),
    "a negative pair": (npy(shape="(-2, -3, 4)"), "claims the shape"),
    "objects": (npy(descr="|O"), "Python objects"),
    "records": (npy(descr="[('a', '<f8')]"), "records"),
    "nothing each": (npy(descr="|V0", shape="(1000000000000,)", data=b""), "records"),
    "no type": (npy(descr="<x9"), "descr"),
    "deep": (npy(shape="(" * 300), "."),
    "signs": (npy(shape=f"({'-' * 5000}1,)"), "."),
    "version 3": (b"\x93NUMPY\x03\x00" + npy()[8:], "records"),
    "version 9": (b"\x93NUMPY\x09\x00" + npy()[8:], "version|records"),
    "no header": (npy()[:40], "."),
    "nothing": (b"", "."),
    "text": (b"no numbers at all", "."),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("stored", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, None])
def test_headers_that_cannot_be_are_one_sentence(tmp_path, kind, stored):
    data, message = HEADERS[kind]
    path = tmp_path / "hostile"
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        if stored is None:
            path.write_bytes(data)
            read_npy(path)
        else:
            read_npz(archive(path, [("x.npy", data)], compression=stored))
    assert "hostile" in str(caught.value) and "\n" not in str(caught.value) and time.monotonic() - began < 5


def test_what_does_not_fit_into_memory_is_not_begun(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=VALUES, y=VALUES)
    np.save(tmp_path / "a.npy", VALUES)
    assert arrays.free_memory() > 2**20
    monkeypatch.setattr(arrays, "free_memory", lambda: 300)
    with pytest.raises(UserError, match=r"a.npz' takes .* GiB of memory"):
        read_npz(tmp_path / "a.npz")
    with Archive(tmp_path / "a.npz") as opened:  # one of the two fits
        assert (opened.read("x") == VALUES).all()
    monkeypatch.setattr(arrays, "free_memory", lambda: 100)
    with pytest.raises(UserError, match=r"a.npy' takes .* GiB of memory"):
        read_npy(tmp_path / "a.npy")


def test_a_bomb_is_measured_before_it_is_unpacked(tmp_path):
    zeros = npy("|u1", f"({2**25},)", bytes(2**25))
    path = archive(tmp_path / "a.npz", [("x.npy", zeros)], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5 and read_npz(path)["x"].size == 2**25
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the size that the table of contents claims
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match="claims 2,147,483,648 bytes, which .* stored bytes cannot hold"):
        read_npz(path)


def member_with(path, flags=0, method=None):
    np.savez(path, x=VALUES)
    data = bytearray(path.read_bytes())
    for sign, flag_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(sign) + flag_at
        data[at] |= flags
        if method is not None:
            data[at + 2 : at + 4] = method.to_bytes(2, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "options, message",
    [({"flags": 1}, "'x.npy' of .* is encrypted"), ({"method": 97}, r"not read \(97\)"), ({"method": 8}, "damaged")],
)
def test_members_that_cannot_be_read(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        read_npz(member_with(tmp_path / "a.npz", **options))


def test_members_that_are_no_arrays_and_twins(tmp_path):
    with Archive(archive(tmp_path / "a.npz", [("x.npy", npy()), ("readme.txt", b"hello")])) as opened:
        assert opened.names == ("x",) and opened.others == ("readme.txt",)
        assert (opened.read("x") == VALUES).all()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="two arrays of one name"):
        read_npz(archive(tmp_path / "b.npz", [("x.npy", npy()), ("x.npy", npy())]))


@pytest.mark.parametrize("compressed", [False, True])
def test_files_with_flipped_or_missing_bytes_give_a_sentence_or_the_values(tmp_path, compressed):
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=VALUES)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        for wrong in (bytes(changed), data[: rng.integers(len(data))]):
            path.write_bytes(wrong)
            try:
                found = read_npz(path)
            except UserError as error:
                assert "\n" not in str(error)
            else:  # what was changed is of no consequence, or the name
                assert [values.tolist() for values in found.values()] in ([VALUES.tolist()], [])


def test_what_is_no_file_of_its_kind(tmp_path):
    np.save(tmp_path / "one.npy", VALUES)
    np.savez(tmp_path / "all.npz", VALUES)
    os.mkfifo(tmp_path / "pipe.npz")
    for read, name, message in (
        (read_npz, "one.npy", "single array"), (read_npy, "all.npz", "several arrays"), (read_npz, "pipe.npz", "FIFO"),
        (read_npy, "pipe.npz", "FIFO"), (read_npz, "gone.npz", "no such file"), (read_npy, ".", "is a folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)


def test_bytes_are_texts_in_utf_8(tmp_path):
    words = ["é", "bc", ""]
    assert texts(np.array([word.encode() for word in words]), "x").tolist() == words
    assert texts(np.array([b"\xef\xbb\xbfa"]), "x").tolist() == ["a"]
    assert texts(np.array(words), "x").tolist() == words
    with pytest.raises(UserError, match="x, entry 1 is not text in UTF-8"):
        texts(np.array([b"a", b"\xe9"]), "x")
    with pytest.raises(UserError, match="x is int64"):
        texts(np.arange(3), "x")
    with pytest.raises(UserError, match="characters that no text has"):
        texts(np.array([0x110000, 65], np.uint32).view("<U1"), "x")


def test_a_wrong_checksum_is_found(tmp_path):
    np.savez(tmp_path / "a.npz", x=VALUES)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(VALUES.tobytes()) + 8] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match="'x' is damaged .*CRC"):
        read_npz(tmp_path / "a.npz")


def test_arrays_are_read_in_one_place():
    """NumPy's own readers of files stand nowhere in the package."""
    for path in (ROOT / "jaxgen").rglob("*.py"):
        found = re.findall(r"\b(?:np|numpy)\.(?:load|memmap)\(|format\.read_array\(", path.read_text())
        assert not found, f"{path} reads arrays with {found}; jaxgen.files.arrays does"
