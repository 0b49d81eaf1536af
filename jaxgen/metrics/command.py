"""`python -m jaxgen.metrics A B`: numbers about the image set A, held against B."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxgen.entry_point import Parser, count, entry_point
from jaxgen.errors import UserError, nearest
from jaxgen.files import check_writable_file, strict_json, write_bytes
from jaxgen.metrics import reference
from jaxgen.metrics.evidence import Score, called
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.metrics.judges import NAMES, looker, open_judge
from jaxgen.metrics.paired import PAIRED, check_pairs, compare_pairs
from jaxgen.metrics.sets import ImageBatch, ImageSet, is_source, open_set
from jaxgen.metrics.suite import METRICS, compare
from jaxgen.metrics.summary import Summary, summarise

CAPTIONED = "clip_score"
ALL = (*METRICS, *PAIRED, CAPTIONED)

DESCRIPTION = """Numbers about the image set A, held against the reference B.

A and B are folders (sub-folders count), .npz files with an array image, images, arr_0 or samples, or data sources with
their split: digits/test, shapes/test, tfds:cifar10/test. One JSON object on stdout: each number with n, reference,
network, its weights' digest and the resize."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line, checked."""

    a: str
    b: str
    floor: str
    metrics: tuple[str, ...]
    network: str
    weights: str
    resize: str
    num: int
    batch: int
    resolution: tuple[int, int] | None
    channels: int | None
    trunk: str
    scale: float
    recompute: bool
    json: str


def parse(arguments: Sequence[str] | None = None) -> Request:
    """Raises a UserError for a word that is no metric or no size."""
    parser = Parser(
        prog="python -m jaxgen.metrics", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="what is judged")
    parser.add_argument("b", metavar="B", help="the reference, or the other half of the pairs")
    parser.add_argument("--metrics", default="fid,kid,precision,recall", help=f"of {', '.join(ALL)}")
    parser.add_argument("--network", choices=NAMES, default="inception", help="whose features are compared")
    parser.add_argument("--weights", default="", help="a file or folder of published weights; else found or fetched")
    parser.add_argument("--resize", choices=("legacy", "clean"), default="legacy", help="to Inception's size")
    parser.add_argument("--num", type=count("num", 0), default=0, help="images of each set, evenly spread; 0: all")
    parser.add_argument("--batch", type=count("batch"), default=100, help="images per program")
    parser.add_argument("--resolution", default="", help="crop and resize all images to SIDE or HEIGHTxWIDTH first")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 grey, 3 RGB; files of another kind are refused")
    parser.add_argument("--floor", default="", metavar="C", help="further real images: the numbers of C against B")
    parser.add_argument("--trunk", choices=("alex", "vgg"), default="alex", help="of LPIPS")
    parser.add_argument("--scale", type=float, choices=(100.0, 2.5), default=100.0, help="of the CLIP score")
    parser.add_argument("--recompute", action="store_true", help="look at B again, and replace what is cached of it")
    parser.add_argument("--json", default="", metavar="FILE", help="write the object into a file as well")
    given = vars(parser.parse_args(arguments))
    metrics = tuple(dict.fromkeys(word for word in given["metrics"].split(",") if word))
    for word in metrics:
        if word not in ALL:
            raise UserError(f"--metrics: there is no {word!r}; {nearest(word, ALL)}")
    if not metrics:
        raise UserError(f"--metrics is empty; name some of {', '.join(ALL)}.")
    if "label_accuracy" in metrics:
        raise UserError("label_accuracy needs the classes that samples were asked for: use main.py --mode=evaluate.")
    given |= {"metrics": metrics, "resolution": _size(given["resolution"])}
    return Request(**given)


def _size(text: str) -> tuple[int, int] | None:
    sides = text.split("x") if text else []
    if len(sides) > 2 or any(not side.isdigit() or int(side) < 1 for side in sides):
        raise UserError(f"--resolution={text} is no size; write 32 or 32x48 (height x width).")
    return (int(sides[0]), int(sides[-1])) if sides else None


def run(request: Request) -> dict[str, dict[str, Any]]:
    """`{name: entry}` as in `metrics.json`, in the order asked for.

    Raises:
      UserError: for sets that cannot be read, do not fit each other or the network, and weights that cannot be had.
    """
    texts = {"a": request.a, "b": request.b, **({"floor": request.floor} if request.floor else {})}
    sets = _open(texts, request)
    whole = [name for name in request.metrics if name in METRICS]
    paired = [name for name in request.metrics if name in PAIRED]
    if paired:
        check_pairs(sets["a"], sets["b"], paired)
    if CAPTIONED in request.metrics and sets["a"].captions is None:
        raise UserError(f"clip_score needs captions, and {request.a!r} has none: write a captions.jsonl into it.")
    scores: dict[str, Score] = {}
    keep = "feature_l2" in paired or any(METRICS[name].features for name in whole)
    summaries: dict[str, Summary] = {}
    network = None
    if whole or "feature_l2" in paired:
        network = open_judge(request.network, request.weights, request.resize)
        _fit(network, sets)
        summaries = {side: _summary(network, found, side, keep, request) for side, found in sets.items()}
    if whole:
        named = f"{request.b} ({sets['b'].count})"
        scores |= compare(
            summaries["a"], summaries["b"], summaries.get("floor"), metrics=whole, network=network, reference_name=named
        )
    if paired:
        with _counted(sets["a"], "pairs", request.batch) as batches:
            scores |= compare_pairs(
                sets["b"], zip(batches, sets["b"].batches(request.batch), strict=True), paired,
                network=network, summaries=summaries, trunk=request.trunk, weights=request.weights, batch=request.batch,
            )  # fmt: skip
    if CAPTIONED in request.metrics:
        scores[CAPTIONED] = _captioned(sets["a"], request)
    return {name: score.to_dict() for name, score in scores.items()}


def _open(texts: dict[str, str], request: Request) -> dict[str, ImageSet]:
    """The sets; data sources without a size of their own take that of the set beside them."""
    found: dict[str, ImageSet] = {}
    resolution, channels = request.resolution, request.channels
    for side in sorted(texts, key=lambda side: is_source(texts[side])):
        beside = next(iter(found.values()), None)
        if is_source(texts[side]) and beside is not None and beside.shape is not None:
            resolution, channels = resolution or beside.shape[:2], channels or beside.channels
        num = request.num if side != "floor" else found["a"].count if "a" in found else request.num
        captioned = side == "a" and CAPTIONED in request.metrics
        found[side] = open_set(texts[side], resolution, channels, num, captioned)
    return {side: found[side] for side in texts}


def _fit(network: FeatureNetwork, sets: dict[str, ImageSet]) -> None:
    """Raises a UserError where a network that does not resize is given images of several sizes."""
    for found in sets.values():
        if network.resize == "none" and found.shape is None:
            raise UserError(
                f"The images of {found.name!r} differ in size, and the {network.name} judge sees one size only; give "
                "--resolution."
            )


def _summary(network: FeatureNetwork, found: ImageSet, side: str, keep: bool, request: Request) -> Summary:
    def make() -> Summary:
        with _counted(found, f"{side.upper()}: {found.name}", request.batch) as batches:
            return summarise(looker(network, request.batch), batches, keep)

    if side != "b":
        return make()
    key = reference.key_of(network, found.name, found.shape or ("mixed",), found.count, found.fingerprint(), keep)
    return reference.cached(key, make, request.recompute)


@contextlib.contextmanager
def _counted(found: ImageSet, what: str, size: int) -> Iterator[Iterator[ImageBatch]]:
    """The batches of a set, counted on stderr; whatever happens, the line there is ended."""
    with tqdm(total=found.count, desc=what, unit="image", file=sys.stderr) as bar:

        def count() -> Iterator[ImageBatch]:
            for batch in found.batches(size):
                yield batch
                bar.update(len(batch))

        yield count()


def _captioned(found: ImageSet, request: Request) -> Score:
    from jaxgen.metrics.clip_score import Clip, cosines

    clip = Clip(request.weights)
    with _counted(found, "captions", request.batch) as batches:
        seen = summarise(looker(clip, request.batch), batches, keep=True)
    cosine = cosines(seen.features, clip.embed_texts(found.captions, request.batch))
    values = request.scale * np.maximum(cosine, 0)
    note = f"{request.scale:g} max(cos, 0); {(cosine < 0).mean():.3g} of the pairs count as 0."
    return Score(
        float(values.mean()), len(values), "captions", better="higher", note=note, std=float(values.std()),
        network=clip.name, digest=clip.digest, resize=clip.resize, published=True,
    )  # fmt: skip


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the numbers, a line each on stderr and as one JSON object on stdout."""
    from jaxgen.host import use_compilation_cache, use_cpu_cores

    request = parse(arguments)
    if request.json:
        check_writable_file(request.json, "--json")
    use_cpu_cores()
    use_compilation_cache()
    entries = run(request)
    text = strict_json(entries)
    if request.json:
        write_bytes(request.json, (text + "\n").encode())
    for name, entry in entries.items():
        print(_line(name, entry), file=sys.stderr)
    print(text)


def _line(name: str, entry: dict[str, Any]) -> str:
    of = [f"n = {entry['n']:,}", entry["reference"] and f"against {entry['reference']}"]
    of += [entry["network"] and f"{entry['network']} {entry['digest']}", entry["resize"]]
    about = ", ".join(word for word in of if word and word != "none")
    return f"{called(name, entry['n'], entry['published'])} {entry['value']:.6g} ({about})"
