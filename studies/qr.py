"""Are pictures that a QR code steers read as that code, and at which conditioning scale?

    python main.py --config=configs/control_qr.py --workdir=runs/control_qr
    python -m studies.qr --workdir=runs/control_qr --out=qr.jsonl --picture=qr.png

Codes are drawn by `qrencode` and read by `zbarimg` (Debian's packages qrencode and zbar-tools), from samples that are
enlarged eight times without smoothing. They have one pixel a module, and the highest error correction.

    read     share of samples that are read as their text
    wrong    share of samples that are read as another text
    modules  share of the code's modules that lie on the right side of the sample's mean luminance
    colour   mean difference between a pixel's largest and smallest channel, in [0, 1]

Beside the samples stand the codes themselves and real images of the data; a scale of 0 draws what the base draws.

    python -m studies.qr --text=HELLO --code=code.png      writes a code as a hint, for --hint
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.files.pictures import load_image
from jaxgen.report.images import grid, save_png, to_rgb
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import restore
from studies import harness

Images = UInt8[np.ndarray, "N H W 3"]
TEXTS = ("JAXGEN", "FLAX", "QR CODE", "2026")
LARGER, QUIET, SEED = 8, 4, 0


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise UserError(f"There is no program {name!r}; install it, for example by `apt-get install {package}`.")
    return found


def code_of(text: str, side: int) -> UInt8[np.ndarray, "S S"]:
    """Returns a text's QR code with one pixel a module, 255 where it is light, in the middle of a light square.

    Raises:
      UserError: with the four light modules at each side that a code needs, it is larger than the square.
    """
    words = [program("qrencode", "qrencode"), "--level=H", "--size=1", "--margin=0", "--type=PNG", "--output=-", text]
    drawn = subprocess.run(words, check=True, capture_output=True).stdout
    found = np.asarray(load_image(drawn, "the code of qrencode").convert("RGBA").convert("L"))
    if len(found) + 2 * QUIET > side:
        raise UserError(f"The code of {text!r} has {len(found)} modules, too many for {side} pixels; shorten the text.")
    before = (side - len(found)) // 2
    return np.pad(found, (before, side - len(found) - before), constant_values=255)


def read(image: UInt8[np.ndarray, "H W C"]) -> str:
    """Returns the text of the code that a picture shows, "" where none is found."""
    words = [program("zbarimg", "zbar-tools"), "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", "png:-"]
    data = io.BytesIO()
    Image.fromarray(image.repeat(LARGER, 0).repeat(LARGER, 1)).save(data, "PNG")
    return subprocess.run(words, input=data.getvalue(), capture_output=True).stdout.decode().strip()


def judged(images: Images, codes: Sequence[np.ndarray], texts: Sequence[str]) -> dict[str, float]:
    """Returns the numbers of pictures, of which image i was asked to show code i % N."""
    wanted = [texts[i % len(texts)] for i in range(len(images))]
    found = [read(image) for image in images]
    light = images @ np.array([0.299, 0.587, 0.114])
    sides = light > light.mean((1, 2), keepdims=True)
    right = [(side == (codes[i % len(codes)] > 0)).mean() for i, side in enumerate(sides)]
    numbers = {
        "read": np.mean([a == b for a, b in zip(found, wanted, strict=True)]),
        "wrong": np.mean([bool(a) and a != b for a, b in zip(found, wanted, strict=True)]),
        "modules": np.mean(right),
        "colour": np.ptp(images.astype(float), axis=-1).mean() / 255,
    }
    return {name: round(float(value), 4) for name, value in numbers.items()}


def drawn(workdir: str, scale: float, hints: np.ndarray, num: int) -> Images:
    config = harness.run_config(workdir, "tuned")
    config.method.grafts.control.scale = scale
    trained = restore(config, workdir)
    of = trained.generator
    generator = Generator(of.method, of.config, of.batch_size, of.held_out.sources, given={"hint": hints[..., None]})
    return generator.images(trained.model, SEED, num).images


def main(
    workdir: Annotated[str, "a run of configs/control_qr.py"] = "",
    out: Annotated[str, "file of the rows"] = "",
    num: Annotated[int, "samples of each scale"] = 100,
    scales: Annotated[tuple[float, ...], "conditioning scales, with commas"] = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
    picture: Annotated[str, "file of a picture: a row for each scale"] = "",
    text: Annotated[str, "the text of --code"] = "JAXGEN",
    code: Annotated[str, "write the code of --text, with 32 pixels, and nothing else"] = "",
) -> None:
    if code:
        save_png(code, code_of(text, 32)[..., None])
        return
    if not workdir or not out:
        raise UserError("Give --workdir and --out, or --code.")
    harness.prepare()
    config = harness.run_config(workdir)
    side = int(config.data.resolution)
    hints = np.stack([code_of(word, side) for word in TEXTS])
    rows = harness.Rows(Path(out), num=num)
    rows.get({"what": "codes"}, lambda: judged(to_rgb(hints[..., None]), hints, TEXTS))
    shown = [to_rgb(np.tile(hints, (2, 1, 1))[..., None])]
    for scale in scales:
        images = drawn(workdir, scale, hints, num)
        rows.get({"what": "samples", "scale": scale}, lambda images=images: judged(images, hints, TEXTS))
        shown.append(images[:8])
    if picture:
        large = grid(np.concatenate(shown), columns=8)
        save_png(picture, np.repeat(np.repeat(large, 4, 0), 4, 1))


if __name__ == "__main__":
    sys.exit(harness.run(main))
