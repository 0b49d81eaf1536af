"""Makes bad values of every sort: texts, JSON, bytes, arrays, pictures, and what may stand in a file's place."""

from __future__ import annotations

import io
import json
import os
import pathlib
import random
import shutil
import zipfile
from typing import Any

import numpy as np
from PIL import Image

NUMBERS = [-1, 0, 1, 2, 3, 7, 2**31, 2**32, 2**63, 10**12, 10**20, -0.5, 0.5, 1.5, 1e-300, 1e300, float("nan"),
           float("inf"), -float("inf"), 10**400]  # fmt: skip
TEXTS = [
    "", " ", "x", "None", "True", "null", "nan", "1e999", "-", "--", "[]", "{}", "(1,", "'", "\\", "\0", "\ud800",
    "\udcff", "é", "e\u0301", "\u202e", "\u2028", "\x1b[31m", "😀", "²", "١٢", "1_000", "0x10", " 1", "a" * 300,
    "a" * 100_000, "9" * 5_000, "~", "~nobody/x", "../../..", "/dev/null", "/proc/self/mem", "/sys/x", "//", ".",
    "gs://a/b", "s3://a", "http://a/b", "file:///a", "x://", "folder:", "npz:", ":", "a:b:c", "os:system",
    "jaxgen.registry:find", "%s%n", "{0.__class__}", "$(touch x)", "`touch x`", "*", "a\nb", "last", "best", "ddim",
    *(f"<odd>/{name}" for name in ("fifo", "file", "folder", "loop", "dangling", "socket", "missing")),
    "<run>", "<pipeline>", "<pictures>", "<pictures>/00.png", "<arrays.npz>", "<noise.npy>", "<config.py>",
    "<run>/config.json", "folder:<odd>/fifo", "npz:<odd>/fifo", "folder:<run>", "npz:<noise.npy>", "<run>#nothing",
]  # fmt: skip
DEEP = "@deep@"  # becomes 100,000 brackets in the JSON text
OTHERS = [None, True, False, [], {}, [[]], [None], {"": 0}, {"name": 0}, {"name": "x"}, [0] * 3, DEEP, [1e300, "x"]]


def near(sound: Any, chance: random.Random) -> Any:
    """Returns a value of JSON's types that is a little different from a sound one, or any other."""
    kind = chance.random()
    if kind < 0.5 and isinstance(sound, bool | int | float):
        return chance.choice([str(sound), -sound, sound * 10**12, sound + 0.5, [sound], sound * 0, sound + 1])
    if kind < 0.5 and isinstance(sound, str):
        return chance.choice([sound[:-1], sound + sound[-1:], sound.upper(), f" {sound}", [sound], f"{sound}\0"])
    if kind < 0.5 and isinstance(sound, list):
        return chance.choice([sound[:-1], sound * 2, sound[::-1], [sound], dict(enumerate(sound)), sound[:1] * 1000])
    if kind < 0.5 and isinstance(sound, dict):
        return chance.choice([[sound], list(sound), {**sound, "unknown": 1}, dict.fromkeys(sound)])
    return chance.choice(chance.choice([NUMBERS, TEXTS, OTHERS]))


def _tree(tree: Any, chance: random.Random) -> Any:
    """Returns a JSON value of which one part, at any depth, is replaced, removed, renamed, or swapped with another."""
    if not (isinstance(tree, dict | list) and tree) or chance.random() < 0.1:
        return near(tree, chance)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, other, kind = chance.choice(keys), chance.choice(keys), chance.random()
    tree = tree.copy()
    if kind < 0.7:
        tree[key] = _tree(tree[key], chance)
    elif kind < 0.8:
        tree[key], tree[other] = tree[other], tree[key]
    elif kind < 0.9 or isinstance(tree, list):
        del tree[key]
    else:
        tree[chance.choice([f"{key}s", key[:-1], key.upper(), *TEXTS])] = tree.pop(key)
    return tree


def _json(file: pathlib.Path, chance: random.Random) -> str:
    """Spoils a JSON file, or one line of a file with a value in each line."""
    lines = file.read_text().split("\n") if file.suffix == ".jsonl" else [file.read_text()]
    i = chance.choice([i for i, line in enumerate(lines) if line.strip()])
    lines[i] = json.dumps(_tree(json.loads(lines[i]), chance)).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    file.write_text("\n".join(lines))
    return f"JSON with {lines[i]}"


def _bytes(file: pathlib.Path, chance: random.Random) -> str:
    """Spoils the bytes of any file."""
    old = file.read_bytes()
    at = chance.randrange(len(old) or 1)
    flipped = bytes([old[at] ^ (1 << chance.randrange(8))]) if old else b"x"
    done, new = chance.choice([
        *[("a bit flipped", old[:at] + flipped + old[at + 1 :])] * 4, ("cut", old[:at]), ("empty", b""),
        ("zeros from here", old[:at].ljust(len(old), b"\0")), ("a mark before", b"\xef\xbb\xbf" + old),
        ("UTF-16", b"\xff\xfe" + old.decode("latin-1").encode("utf-16-le")), ("noise", chance.randbytes(500)),
        ("Latin-1 within", old[:at] + b"\xe9" + old[at:]), ("NUL within", old[:at] + b"\0" + old[at:]),
        ("more behind", old + old[:at]), ("a huge line", old + b"x" * 10**7), ("CR", old.replace(b"\n", b"\r")),
        ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), ("HTML", b"<html>Not found</html>"),
    ])  # fmt: skip
    file.write_bytes(new)
    return f"{done}, byte {at} of {len(old)}"


def _array(old: np.ndarray, chance: random.Random) -> tuple[str, np.ndarray]:
    dtype = chance.choice(["O", "U3", "S3", "?", "f2", "f8", "c8", "i1", "u2", "i8", ">i4", "M8[s]", "i4,f4"])
    ways = {
        f"as {dtype}": lambda: np.zeros(old.shape, dtype) if "," in dtype else old.astype(dtype),
        "transposed": lambda: old.T, "no examples": lambda: old[:0], "0-d": lambda: old.ravel()[0],
        "one more": lambda: np.concatenate([old, old[:1]]), "flat": lambda: old.ravel(), "an axis": lambda: old[None],
        "the first": lambda: old[0], "three channels": lambda: np.repeat(old, 3, -1), "real": lambda: old / 255 - 1e-8,
        "NaN": lambda: np.where(old == old.max(), np.nan, old), "infinite": lambda: old.astype(np.float32) * np.inf,
        "negative": lambda: -old.astype(np.int64) - 1, "huge": lambda: old.astype(np.float64) * 1e300,
        "no width": lambda: np.zeros((len(old), 0, 8, 1)), "beyond int32": lambda: old.astype(np.int64) + 2**40,
    }  # fmt: skip
    done = chance.choice(list(ways))
    with np.errstate(all="ignore"):
        return done, np.asarray(ways[done]())


def _arrays(file: pathlib.Path, chance: random.Random) -> str:
    """Spoils one array of an npy or npz file, its header or its entry in the zip file."""
    shape = chance.choice([(10**12,), (2**40, 8, 8, 1), (-1, 8), (2**62, 4), (1,) * 100, (0,), (12, 10**6, 10**6, 3)])
    header, zipped, kind = io.BytesIO(), file.suffix == ".npz", chance.randrange(10)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    arrays = dict(np.load(file)) if zipped else {"": np.load(file)}
    name = chance.choice(list(arrays))
    done, array = _array(arrays.pop(name), chance)
    if kind < 2:  # an array that is as large as the machine cannot hold, or that has no data
        file.write_bytes(header.getvalue() + b"x" * 64)
        if zipped:
            with zipfile.ZipFile(file, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as made:
                made.writestr(f"{name}.npy", header.getvalue() + b"x" * 64)
        return f"{name} claims {shape}"
    if not zipped:
        np.save(file, array)
        return done
    if kind > 2:
        arrays[name if kind > 3 else f"x{name}"] = array
    np.savez(file, **arrays)
    if arrays and chance.random() < 0.1:
        data, place = bytearray(file.read_bytes()), chance.choice([8, 10, 16])  # encrypted, another method, checksum
        data[data.index(b"PK\x01\x02") + place] ^= 0x5F if place == 10 else 1
        file.write_bytes(data)
        done += f" and byte {place} of the zip entry"
    return f"{name}: {done}" if kind > 3 else f"{name} removed or renamed"


def _picture(file: pathlib.Path, chance: random.Random) -> str:
    """Writes a picture in another format, mode or size under the same name."""
    form = chance.choice(["GIF", "TIFF", "BMP", "PPM", "WEBP", "ICO", "JPEG", "PNG", "EPS", "PDF", "PCX", "PNG"])
    mode = chance.choice(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
    size = chance.choice([(8, 8), (8, 8), (1, 1), (7, 9), (20_000, 1)])
    try:
        Image.new(mode, size).save(file, form)
    except (OSError, ValueError, KeyError):  # a format without this mode
        Image.new("RGB", size).save(file, "PNG")
        data = file.read_bytes()
        file.write_bytes(data[:16] + b"\0\1\0\0" * 2 + data[24:])
        return "a header that claims 65536 x 65536 pixels"
    return f"{form} {mode} {size}"


def _place(path: pathlib.Path, chance: random.Random) -> str:
    """Removes a file or folder, or puts something else in its place."""
    (shutil.rmtree if path.is_dir() else os.unlink)(path)
    done = chance.choice(["removed", "a folder", "a file", "FIFO", path.name, "nowhere", "/dev/zero"])
    if done == "a folder":
        path.mkdir()
    elif done == "a file":
        path.write_bytes(b"x")
    elif done == "FIFO":
        os.mkfifo(path)
    elif done != "removed":
        path.symlink_to(done)
        done = f"a link to {done}"
    return done


_FITTING = {".json": _json, ".jsonl": _json, ".npz": _arrays, ".npy": _arrays, ".png": _picture}


def spoil(path: pathlib.Path, chance: random.Random) -> str:
    """Spoils a file or a folder in a way that fits it; returns what was done."""
    kind = chance.random()
    if path.is_dir() or kind < 0.15:
        return _place(path, chance)
    return (_FITTING.get(path.suffix, _bytes) if kind < 0.75 else _bytes)(path, chance)
