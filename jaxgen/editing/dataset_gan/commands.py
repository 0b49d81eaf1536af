"""The uses of a GAN that labels its own images: what each reads, makes and writes."""

from __future__ import annotations

import jax
import numpy as np
from etils import epath
from jaxtyping import Int

from jaxgen.colours import class_colours
from jaxgen.data import open_source
from jaxgen.data.images import decode_mask
from jaxgen.editing.dataset_gan.pairs import Painter, Pairs
from jaxgen.errors import UserError
from jaxgen.files import regular_file, whole_file
from jaxgen.files.arrays import read_npz
from jaxgen.methods.gans.codes import NAME
from jaxgen.methods.segmentation.segmentation import Segmentation
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel

IN_FILES = {"image": "images", "mask": "masks"}  # the names of entries in an archive
SHOWN = 8  # pairs in a row of the picture


def painter_of(found: TrainedModel) -> Painter:
    """Returns the GAN of a run, on one device. Raises a UserError for a method without codes."""
    return Painter.of(found.generator.method, jax.device_put(found.model, jax.devices()[0]))


def draw(painter: Painter, num: int, seed: int, out: epath.PathLike) -> None:
    """Writes `num` images to be labelled, `images/<number>.png`, and `codes.npz`, which has them with their codes."""
    arrays, folder = painter.draw(seed, num), epath.Path(out)
    for number, image in enumerate(arrays["image"]):
        save_png(folder / "images" / f"{number:05d}.png", image, number)
    write_arrays(folder / "codes.npz", arrays)


def read_codes(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Returns the arrays that `draw` wrote. Raises a UserError for another file."""
    arrays = read_npz(path, "--codes")
    found = {"image" if name == "images" else name: values for name, values in arrays.items()}
    if "image" not in found or not any(name.startswith(NAME) for name in found):
        raise UserError(f"--codes={path} has no images with codes: give a codes.npz that `draw` wrote.")
    return found


def read_masks(folder: epath.PathLike, images: np.ndarray) -> Int[np.ndarray, "N H W"]:
    """Returns the masks `<number>.png` of images, whose files have grey levels or indices of a palette as classes.

    Masks are needed of the first images, one or more of them; those behind the last mask have none, and are left out.

    Raises:
      UserError: there is no mask, one between others is missing, or one cannot be read or is of another size.
    """
    place, size = epath.Path(folder), images.shape[1:3]
    paths = [place / f"{number:05d}.png" for number in range(len(images))]
    there = [path.exists() for path in paths]
    count = sum(there)
    if not count or not all(there[:count]):
        raise UserError(f"--masks={folder} has no {paths[there.index(False)].name}: label the images in their order.")
    masks = []
    for path in paths[:count]:
        mask = decode_mask(regular_file(path, "--masks").read_bytes(), None, str(path), classes=True)
        if mask.shape != size:
            raise UserError(
                f"{path} has {mask.shape[1]}x{mask.shape[0]} pixels and its image {size[1]}x{size[0]}: a mask has the "
                "class of each pixel, so bring it to that size without mixing."
            )
        masks.append(mask)
    return np.stack(masks)


def annotated(found: TrainedModel, images: np.ndarray) -> Int[np.ndarray, "N H W"]:
    """Returns the masks that a trained segmenter gives to images.

    Raises:
      UserError: the run gives no masks of images, or sees images of another size.
    """
    method = found.generator.method
    shape = getattr(method, "image_shape", None)
    if method.gives != "mask" or method.conditions != ("image",):
        raise UserError(f"--annotator is a run of {type(method).__name__}, which gives images no masks.")
    if tuple(shape or ()) != images.shape[1:]:
        raise UserError(f"--annotator sees images of {shape}, and these are of {images.shape[1:]}: take another run.")
    return found.generator.changed(method, {"image": images}).draw(found.model, 0, len(images)).main


def labelled(arrays: dict[str, np.ndarray], masks: np.ndarray, train: int) -> dict[str, np.ndarray]:
    """Returns the first `train` labelled images with their codes as the split `train`, and the others as `test`.

    Raises:
      UserError: there are fewer.
    """
    if train > len(masks):
        raise UserError(f"--train={train}, and {len(masks)} images have masks: lower it, or label more.")
    rows = {name: values[: len(masks)] for name, values in {**arrays, "mask": masks.astype(np.uint8)}.items()}
    found = {f"train_{name}": values[:train] for name, values in rows.items()}
    return found | ({f"test_{name}": values[train:] for name, values in rows.items()} if train < len(masks) else {})


def labeller_of(found: TrainedModel) -> Segmentation:
    """Returns the ensemble of a run. Raises a UserError for another method."""
    method = found.generator.method
    if not isinstance(method, Segmentation):
        raise UserError(f"This is a run of {type(method).__name__}, and pairs need one of the method segmentation.")
    return method


def painter_behind(found: TrainedModel) -> Painter:
    """Returns the GAN whose layers the ensemble of a run reads. Raises a UserError where it reads none."""
    method = labeller_of(found)
    if method.trained is None or method.conditions == ("image",):
        raise UserError("This run reads no layers of a GAN, so that it has no images of its own: give --gan.")
    return Painter.of(method.trained, jax.device_put(found.model, jax.devices()[0]))


def on_one_device(painter: Painter, labeller: Segmentation, found: TrainedModel, seed: int, num: int) -> Pairs:
    """Returns `num` pairs of a painter and the ensemble of a run."""
    return painter.pairs(labeller, jax.device_put(found.model, jax.devices()[0]), seed, num)


def held_out(source: str, num: int, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Returns the first `num` real images of a source's split `test`, with their masks.

    Raises:
      UserError: it has no masks, or not as many images.
    """
    data = open_source(source, "test", shape[:2], shape[2])
    if num > len(data):
        raise UserError(f"--real_num={num}, and --real={source} has {len(data)} held-out images: ask for fewer.")
    rows = data.take(list(range(num)))
    if "mask" not in rows:
        raise UserError(f"--real={source} has no masks, so that nothing is measured on it: name data that have.")
    return {f"test_{name}": np.asarray(rows[name]) for name in ("image", "mask")}


def pair_arrays(pairs: Pairs, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the pairs that are kept, as the split `train`, with the uncertainty of each."""
    return {
        "train_image": pairs.images[kept],
        "train_mask": pairs.masks[kept],
        "train_uncertainty": pairs.uncertainty[kept].astype(np.float32),
    }


def write_arrays(path: epath.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays under the names that the source `npz:` reads."""
    named = {}
    for name, values in arrays.items():
        stem, _, entry = name.rpartition("_")
        named["_".join(filter(None, (stem, IN_FILES.get(entry, entry))))] = values
    with whole_file(path) as file:
        np.savez_compressed(file, **named)  # type: ignore[arg-type]  # mypy fears an array "allow_pickle"


def save_picture(path: epath.PathLike, pairs: Pairs) -> None:
    """Writes the most certain pairs and the most uncertain ones: images, masks, and where the members disagree."""
    order = np.argsort(pairs.uncertainty, kind="stable")
    count = min(SHOWN, len(order))
    rows = []
    for part in (order[:count], order[-count:]):
        image, doubt = pairs.images[part], pairs.doubt[part]
        seen = np.round(255 * doubt / max(float(pairs.doubt.max()), 1e-6)).astype(np.uint8)
        shape = (*image.shape[:3], 3)
        colours = class_colours(256)[pairs.masks[part]]
        rows += [np.broadcast_to(image, shape), colours, np.broadcast_to(seen[..., None], shape)]
    save_png(path, grid(np.concatenate(rows), columns=count))
