"""`python -m jaxgen.metrics A B` computes numbers about the image set A, compared with B."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from jaxgen.entry_point import Parser, a_path, count, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_writable_file, strict_json, write_bytes
from jaxgen.metrics import reference
from jaxgen.metrics.base import OF_NETWORK, Metric, SetMetric
from jaxgen.metrics.choice import Words, choose, find_metric, open_network
from jaxgen.metrics.compare import compare
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairs.base import (
    CaptionMetric,
    FeaturePairMetric,
    PairMetric,
    check_pairs,
    compare_features,
    compare_pixels,
)
from jaxgen.metrics.score import Score, display_name
from jaxgen.metrics.sets import ImageBatch, ImageSet, is_source, open_set
from jaxgen.metrics.statistics import Statistics, has_images, need_images, open_statistics, suffice
from jaxgen.metrics.summary import Summary, summarise
from jaxgen.sizes import check_fits, whole

OF_A_RUN = "that is known of a run alone: use main.py --mode=evaluate"
WORDS = Words(
    metrics="--metrics",
    network="--network",
    role=Metric,
    offers=frozenset({"pairs", "captions"}),
    elsewhere=dict.fromkeys(
        ("labels", "images", "training images", "truth", "hints", "mask", "conditions", "video"), OF_A_RUN
    ),
    who="an image set",
)

DESCRIPTION = """Computes numbers about the image set A, compared with the reference B.

A and B are folders (sub-folders count), .npz files with an array image, images, arr_0 or samples, or data sources with
their split: digits/test, shapes/test, tfds:cifar10/test. For fid, B may also be an .npz file of published statistics,
mu and sigma. The command prints one JSON object on stdout: each number
with n, reference, network, its weights' digest and the resize."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Holds the command line, checked."""

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
    pairs: str
    recompute: bool
    json: str


def parse(arguments: Sequence[str] | None = None) -> Request:
    """Raises a UserError for a word that is no size or no number. What `--metrics` names is looked up by `run`."""
    parser = Parser(
        prog="python -m jaxgen.metrics", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="the set that the numbers are about")
    parser.add_argument("b", metavar="B", help="the reference, or the other half of the pairs")
    parser.add_argument(
        "--metrics", default="frechet,kid,precision,recall", help="names between commas; docs/metrics.md has them all"
    )
    parser.add_argument(
        "--network", default="inception", help="whose features are compared: inception, clip, digits, fashion, or yours"
    )
    parser.add_argument(
        "--weights", type=a_path("--weights"), help="a file or folder of published weights; else found or fetched"
    )
    parser.add_argument("--resize", default="", help="how Inception's size is reached: legacy, by default, or clean")
    parser.add_argument("--num", type=count("num", 0), default=0, help="images of each set, evenly spread; 0: all")
    parser.add_argument("--batch", type=count("batch"), default=100, help="images per program")
    parser.add_argument("--resolution", default="", help="crop and resize all images to SIDE or HEIGHTxWIDTH first")
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 grey, 3 RGB; files of another kind are refused")
    parser.add_argument("--floor", default="", metavar="C", help="further real images: the numbers of C against B")
    parser.add_argument("--trunk", choices=("alex", "vgg"), default="alex", help="the network of LPIPS")
    parser.add_argument("--scale", type=float, choices=(100.0, 2.5), default=100.0, help="the factor of the CLIP score")
    parser.add_argument(
        "--pairs", choices=("name", "order"), default="name", help="how the images of two folders are paired"
    )
    parser.add_argument("--recompute", action="store_true", help="look at B again, and replace what is cached of it")
    parser.add_argument("--json", type=a_path("--json"), metavar="FILE", help="write the object into a file as well")
    given = vars(parser.parse_args(arguments))
    metrics = tuple(dict.fromkeys(word for word in given["metrics"].split(",") if word))
    if not metrics:
        raise UserError("--metrics is empty; name some numbers, such as frechet,kid.")
    for side in ("a", "b"):
        if not given[side].strip():
            raise UserError(f"{side.upper()} is empty; name a folder, an .npz file, or a data source with its split.")
    given |= {name: given[name] or "" for name in ("weights", "json")}
    given |= {"metrics": metrics, "resolution": _size(given["resolution"], given["batch"])}
    return Request(**given)


def _size(text: str, batch: int) -> tuple[int, int] | None:
    """Returns the height and width of --resolution, of which two batches of images must fit into memory."""
    sides = [whole(side) or 0 for side in text.split("x")] if text else []
    if len(sides) > 2 or 0 in sides:
        raise UserError(f"--resolution={text} is no size; write 32 or 32x48 (height x width).")
    if not sides:
        return None
    what = f"two batches of --batch={batch} images of --resolution={text}"
    check_fits(2 * batch * sides[0] * sides[-1], what, "lower one of the two")
    return sides[0], sides[-1]


def run(request: Request) -> dict[str, dict[str, Any]]:
    """Returns `{name: entry}` as in `metrics.json`, in the order asked for.

    Raises:
      UserError: for sets that cannot be read, do not fit each other or the network, and weights that cannot be had.
    """
    looks = any(find_metric(name, WORDS).needs & set(OF_NETWORK) for name in request.metrics)
    options = {"weights": request.weights, "resize": request.resize}
    network = open_network(request.network, WORDS.network, **options) if looks else None
    given = {"weights": request.weights, "trunk": request.trunk, "scale": request.scale}
    metrics = [chosen.metric for chosen in choose(request.metrics, network, WORDS, **given)]
    of_captions = [metric for metric in metrics if isinstance(metric, CaptionMetric)]
    of_pixels = [metric for metric in metrics if isinstance(metric, PairMetric)]
    of_features = [metric for metric in metrics if isinstance(metric, FeaturePairMetric)]
    if request.pairs == "order" and not of_pixels and not of_features:
        raise UserError(f"--pairs=order is of metrics of pairs; none of {', '.join(request.metrics)} is one.")
    statistics = _statistics(request, [metric for metric in metrics if metric not in of_captions], network)
    alone = statistics is not None and all(suffice(metric) for metric in metrics)
    sets = _open(request, captioned=bool(of_captions), paired=bool(of_pixels or of_features), without_b=alone)
    if of_pixels or of_features:
        check_pairs(sets["a"], sets["b"], [*of_pixels, *of_features])
    captions = _captions(sets["a"]) if of_captions else ()
    scores = _of_features(metrics, network, sets, statistics, request) if network is not None else {}
    if of_pixels:
        with _counted(sets["a"], "pairs", request.batch) as batches:
            pairs = zip(batches, sets["b"].batches(request.batch), strict=True)
            scores |= compare_pixels(of_pixels, sets["b"], pairs, request.batch)
    for metric in of_captions:
        with _counted(sets["a"], "captions", request.batch) as batches:
            scores[metric.name] = metric.score(batches, captions, request.batch)
    return {name: score.to_dict() for name, score in scores.items()}


def _statistics(request: Request, metrics: Sequence[Metric], network: FeatureNetwork | None) -> Statistics | None:
    """Returns the published statistics that B is or has beside its images, or None.

    Raises:
      UserError: for statistics of other features, without the images that a metric needs, or in the place of A or C.
    """
    for flag, text in (("A", request.a), ("--floor", request.floor)):
        if text and not has_images(text):
            raise UserError(f"{flag}={text} holds statistics without images; they can only be the reference B.")
    found = open_statistics(request.b, "B")
    if found is None:
        return None
    others = [metric for metric in metrics if not suffice(metric)]
    if others and not has_images(request.b):
        raise need_images(others[0], request.b)
    if network is not None and len(others) < len(metrics):
        found.check_network(network)
    return found


def _captions(found: ImageSet) -> Sequence[str]:
    """Returns the captions of a set. Raises a UserError where it has none."""
    if found.captions is None:
        raise UserError(f"clip_score needs captions, and {found.name!r} has none: write a captions.jsonl into it.")
    return found.captions


def _of_features(
    metrics: Sequence[Metric],
    network: FeatureNetwork,
    sets: Mapping[str, ImageSet],
    statistics: Statistics | None,
    request: Request,
) -> dict[str, Score]:
    """Returns the numbers that are made from a network's features, in the order asked for.

    Where B has statistics, they are the reference of the metrics that need no more.
    """
    whole = [metric for metric in metrics if isinstance(metric, SetMetric)]
    paired = [metric for metric in metrics if isinstance(metric, FeaturePairMetric)]
    if not whole and not paired:
        return {}
    network.open()
    _fit(network, sets)
    keep = bool(paired) or any("features" in metric.needs for metric in whole)
    summaries = {side: _summary(network, found, side, keep, request) for side, found in sets.items()}
    of_statistics = [metric for metric in whole if statistics is not None and suffice(metric)]
    of_images = [metric for metric in whole if metric not in of_statistics]
    references = []
    if of_statistics and statistics is not None:
        references.append((of_statistics, statistics.summary, statistics.label))
    if of_images:
        references.append((of_images, summaries["b"], f"{request.b} ({sets['b'].count})"))
    scores: dict[str, Score] = {}
    for chosen, summary, named in references:
        scores |= compare(
            summaries["a"], summary, summaries.get("floor"), metrics=chosen, network=network, reference_name=named
        )
    scores = {metric.number(network): scores[metric.number(network)] for metric in whole}
    return scores | (compare_features(paired, sets["b"], summaries["a"], summaries["b"], network) if paired else {})


def _open(request: Request, captioned: bool, paired: bool, without_b: bool) -> dict[str, ImageSet]:
    """Returns the opened sets; data sources without a size of their own take that of the set beside them.

    Args:
      captioned: whether captions are read.
      paired: whether image i of A is held against image i of B. Two folders are then paired by their files' names,
        unless the request insists on order; other sets are paired by order, which is told.
      without_b: whether B is left out, since its statistics are enough.
    """
    given = {"a": request.a, "b": "" if without_b else request.b, "floor": request.floor}
    texts = {side: text for side, text in given.items() if text}
    found: dict[str, ImageSet] = {}
    resolution, channels = request.resolution, request.channels
    for side in sorted(texts, key=lambda side: is_source(texts[side])):
        beside = next(iter(found.values()), None)
        if is_source(texts[side]) and beside is not None and beside.shape is not None:
            resolution, channels = resolution or beside.shape[:2], channels or beside.channels
        num = request.num if side != "floor" else found["a"].count if "a" in found else request.num
        by_name = paired and side == "b" and request.pairs == "name" and bool(found.get("a") and found["a"].files)
        partner_of = found["a"] if by_name else None
        found[side] = open_set(texts[side], resolution, channels, num, captioned and side == "a", partner_of)
        if found[side].notes:
            print(f"{found[side].name}: {found[side].count:,} images; {'; '.join(found[side].notes)}", file=sys.stderr)
    kinds = {side: "grey" if each.channels == 1 else "RGB" for side, each in found.items()}
    if len(set(kinds.values())) > 1:
        told = " and ".join(f"{texts[side]} is {kind}" for side, kind in kinds.items())
        raise UserError(f"{told}: compare sets of the same channels, such as pictures that were converted to one kind.")
    if paired and min(found["a"].count, found["b"].count):
        print(_pairing(found["a"], found["b"], request.pairs), file=sys.stderr)
    return {side: found[side] for side in texts}


def _pairing(a: ImageSet, b: ImageSet, wanted: str) -> str:
    """Returns a line that says how images are paired, and the first two pairs."""
    how = "by name" if wanted == "name" and a.files and b.files else "by order"
    shown = [[*found.files[:2]] or [f"row {i}" for i in range(min(2, found.count))] for found in (a, b)]
    return f"pairs {how}: " + ", ".join(f"{x} with {y}" for x, y in zip(*shown, strict=False)) + ", ..."


def _fit(network: FeatureNetwork, sets: Mapping[str, ImageSet]) -> None:
    """Raises a UserError where a network that does not resize is given images of several sizes."""
    for found in sets.values():
        if network.resize == "none" and found.shape is None:
            raise UserError(
                f"The images of {found.name!r} differ in size, and the network {network.name!r} sees one size "
                "only; give --resolution."
            )


def _summary(network: FeatureNetwork, found: ImageSet, side: str, keep: bool, request: Request) -> Summary:
    def make() -> Summary:
        with _counted(found, f"{side.upper()}: {found.name}", request.batch) as batches:
            return summarise(lambda images: network.see(images, request.batch), batches, keep)

    if side != "b":
        return make()
    key = reference.key_of(network, found.name, found.shape or ("mixed",), found.count, found.fingerprint(), keep)
    return reference.cached(key, make, request.recompute)


@contextlib.contextmanager
def _counted(found: ImageSet, what: str, size: int) -> Iterator[Iterator[ImageBatch]]:
    """Gives the batches of a set and counts them on stderr; the line there is ended in any case."""
    with tqdm(total=found.count, desc=what, unit="image", file=sys.stderr) as bar:

        def count() -> Iterator[ImageBatch]:
            for batch in found.batches(size):
                yield batch
                bar.update(len(batch))

        yield count()


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the numbers, a line each on stderr and as one JSON object on stdout."""
    from jaxgen.host import use_compilation_cache, use_cpu_cores

    request = parse(arguments)
    if request.json:
        check_writable_file(request.json, "--json")
        for text in (request.a, request.b, request.floor):
            if os.path.exists(text) and os.path.exists(request.json) and os.path.samefile(text, request.json):
                raise UserError(f"--json={request.json} is one of the sets, and would replace it; name another file.")
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
    return f"{display_name(name, entry['n'], entry['published'])} {entry['value']:.6g} ({about})"
