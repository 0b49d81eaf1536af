"""Is zero-shot CLIP more robust than a supervised classifier of equal accuracy, when the pictures change?

    python main.py --config=configs/clip_shapes.py --workdir=runs/clip_shapes
    python main.py --config=configs/classifier_shapes_tower.py --workdir=runs/classifier_shapes_tower
    python -m studies.clip_shift --clip=runs/clip_shapes --classifier=runs/classifier_shapes_tower

Both have an image tower of one size and saw the same images (Radford et al. 2021, section 3.3). CLIP tells an
attribute by the sentences of its config, the classifier by its logits. The scenes are those of `test` and `unseen`, as
they are and changed: as contours, as a chalk drawing (other colours, an outline, another ground), on a grey ground,
with noise, blurred, by JPEG, and drawn by Pillow. A contour has no colour, so that its colour is left out. Chance is
1/8, 1/8 and 1/9. Prints one JSON line for each model and kind of picture, and a table; --out writes a picture of all
kinds.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxgen.data import open_source
from jaxgen.data.sources import caption_shapes, shapes
from jaxgen.data.transforms import to_float
from jaxgen.files.pictures import open_image
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

GREY = shapes.NAMES["background"].index("grey")
NAMES = caption_shapes.ATTRIBUTES
AT_ONCE = 100
Tell = Callable[[np.ndarray], np.ndarray]  # uint8 images [N, H, W, 3] -> attributes [N, 3]


def scenes(split: str, num: int, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns `{kind: uint8 [N, H, W, 3]}` of the same scenes, and their attributes [N, 3]."""
    source = open_source("caption_shapes:phrases", split, size, 3)
    wanted = source.take(range(num))["attributes"]
    found: dict[str, list[np.ndarray]] = {}
    for i, attributes in enumerate(wanted):
        for kind, image in views(attributes, source.draws(i), size).items():
            found.setdefault(kind, []).append(image)
    return {kind: np.stack(images) for kind, images in found.items()}, wanted


def views(attributes: np.ndarray, draws: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Returns uint8 pictures of one scene, of every kind."""

    def drawn(background: int) -> dict[str, np.ndarray]:
        whole = np.array([*attributes, caption_shapes.SIZE, caption_shapes.TEXTURE, background])
        return shapes._render(whole, draws, (size, size))

    plain = drawn(caption_shapes.BACKGROUND)
    image = plain["image"]
    noise = np.random.default_rng(int(draws[0] * 2**32)).normal(0, 50, image.shape)
    picture, file = Image.fromarray(image), io.BytesIO()
    picture.save(file, "JPEG", quality=20)
    return {
        "as trained": image,
        "contours": np.repeat(plain["outline"], 3, axis=-1),
        "chalk": plain["style"],
        "grey ground": drawn(GREY)["image"],
        "noise": np.clip(image + noise, 0, 255).astype(np.uint8),
        "blur": np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5))),
        "jpeg": np.asarray(open_image(file.getvalue(), "a JPEG").convert("RGB")),
        "pillow": by_pillow(attributes, draws, size),
    }


def by_pillow(attributes: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """Returns a scene that Pillow draws, without antialiasing, upright, smaller, in the plain colours of its names."""
    shape, colour, position = (int(value) for value in attributes)
    x, y = (share * size for share in shapes._centre(position, draws))
    r = 0.2 * size
    rgb = CSS_COLOURS[colour]
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    box = (x - r, y - r, x + r, y + r)

    def around(count: int, radii: tuple[float, ...] = (1.0,), turn: float = -0.5) -> list[tuple[float, float]]:
        angles = np.pi * (2 * np.arange(count) / count + turn)
        sizes = [radii[i % len(radii)] * r for i in range(count)]
        return [(x + a * np.cos(t), y + a * np.sin(t)) for a, t in zip(sizes, angles, strict=True)]

    name = shapes.NAMES["shape"][shape]
    if name == "circle":
        draw.ellipse(box, fill=rgb)
    elif name == "ring":
        draw.ellipse(box, outline=rgb, width=max(2, round(0.45 * r)))
    elif name == "square":
        draw.rectangle((x - 0.75 * r, y - 0.75 * r, x + 0.75 * r, y + 0.75 * r), fill=rgb)
    elif name == "triangle":
        draw.polygon(around(3), fill=rgb)
    elif name == "diamond":
        draw.polygon(around(4, (1.0, 0.62)), fill=rgb)
    elif name == "star":
        draw.polygon(around(10, (1.0, 0.42)), fill=rgb)
    elif name == "cross":
        draw.rectangle((x - 0.28 * r, y - r, x + 0.28 * r, y + r), fill=rgb)
        draw.rectangle((x - r, y - 0.28 * r, x + r, y + 0.28 * r), fill=rgb)
    else:  # a heart
        draw.ellipse((x - r, y - 0.8 * r, x, y + 0.2 * r), fill=rgb)
        draw.ellipse((x, y - 0.8 * r, x + r, y + 0.2 * r), fill=rgb)
        draw.polygon([(x - 0.9 * r, y), (x + 0.9 * r, y), (x, y + r)], fill=rgb)
    return np.asarray(image)


# the colours of these names in CSS, in the order of shapes.NAMES
CSS_COLOURS = ("#ff0000", "#ffa500", "#ffff00", "#008000", "#00ffff", "#0000ff", "#800080", "#ffc0cb")


def in_parts(compiled: Callable[[np.ndarray], jax.Array]) -> Tell:
    """Turns a compiled function of `AT_ONCE` images into one of any number."""

    def run(images: np.ndarray) -> np.ndarray:
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % AT_ONCE, axis=0)])
        parts = [np.asarray(compiled(filled[i : i + AT_ONCE])) for i in range(0, len(filled), AT_ONCE)]
        return np.concatenate(parts)[: len(images)]

    return run


def by_clip(trained: TrainedModel) -> Tell:
    """Tells attributes by the nearest of the classes that the run's prompts say."""
    method, params = trained.generator.method, trained.model.params
    classes = [
        jax.jit(lambda params, p=prompts: p.embeddings(lambda tokens: method.embed_text(params, tokens)))(params)
        for prompts in (method.zero_shot[name] for name in NAMES)
    ]

    @jax.jit
    def tell(params, images):
        image = method.embed_image(params, to_float({"image": images})["image"])
        return jax.numpy.stack([(image @ of.T).argmax(axis=1) for of in classes], axis=1)

    return in_parts(lambda images: tell(params, images))


def by_classifier(trained: TrainedModel) -> Tell:
    """Tells attributes by a classifier's logits."""
    method = trained.generator.method
    tell = jax.jit(lambda model, images: method.tell(model, to_float({"image": images})["image"]))
    return in_parts(lambda images: tell(trained.model, images))


def main(
    clip: Annotated[str, "a run of configs/clip_shapes.py"],
    classifier: Annotated[str, "a run of configs/classifier_shapes_tower.py"],
    num: Annotated[int, "scenes of each split"] = 1000,
    out: Annotated[str, "a picture of all kinds, a PNG"] = "",
) -> None:
    harness.prepare()
    models = {"clip": harness.trained(clip), "classifier": harness.trained(classifier)}
    tellers = {"clip": by_clip(models["clip"]), "classifier": by_classifier(models["classifier"])}
    size = models["clip"].generator.method.image_shape[0]
    rows = []
    for split in ("test", "unseen"):
        pictures, wanted = scenes(split, num, size)
        if out and split == "test":
            save_png(Path(out), grid(np.concatenate([images[:8] for images in pictures.values()]), columns=8))
        for kind, images in pictures.items():
            for name, tell in tellers.items():
                right = (tell(images) == wanted).mean(axis=0)
                shares = dict(zip(NAMES, right.round(4).tolist(), strict=True))
                if kind == "contours":
                    shares["colour"] = None
                rows.append({"split": split, "pictures": kind, "model": name, **shares})
                harness.Rows(None).add(rows[-1])
    print(harness.table(["split", "pictures", "model", *NAMES], [list(row.values()) for row in rows]))


if __name__ == "__main__":
    sys.exit(harness.run(main))
