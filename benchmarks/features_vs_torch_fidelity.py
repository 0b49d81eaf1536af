"""Times the FID's two halves against torch-fidelity on the same CPU cores: Inception features, and the distance.

Both sides see the same images, resize them to 299 pixels a side and run the same network with the same random
weights; the distance is taken between the same two sets of 2048-d features.

    python -m benchmarks.features_vs_torch_fidelity --num 5000

The bars are features in at most 1.2 times torch-fidelity's time with at most 1.8 times its peak memory, the distance in
at most half of its time. Each side is a process of its own; they take turns. Needs the extra 'parity', and
torchvision or the stand-in of `tests/parity/conftest.py`. The machine should be otherwise idle.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from benchmarks.peers import Worker, alternate, report, serve
from studies import harness

BARS = {"features": 1.2, "memory": 1.8, "distance": 0.5}


def random_state() -> dict[str, np.ndarray]:
    """Returns weights under their published names, the same in every process."""
    from jaxgen.interop.feature_networks.inception import shapes

    chance = np.random.default_rng(0)
    state = {}

    def fill(tree: dict[str, Any], prefix: str) -> None:
        if "kernel" not in tree:
            for name, part in tree.items():
                fill(part, f"{prefix}{name}.")
            return
        shape = tree["kernel"].shape
        scale = np.float32((2 / np.prod(shape[:-1])) ** 0.5)
        kernel = scale * chance.standard_normal(shape[::-1] if len(shape) == 2 else _oihw(shape), np.float32)
        if len(shape) == 2:
            state[f"{prefix}weight"], state[f"{prefix}bias"] = kernel, np.zeros(shape[1], np.float32)
            return
        state[f"{prefix}conv.weight"] = kernel
        for name in ("weight", "bias", "running_mean", "running_var"):
            middle = 1.0 if name in ("weight", "running_var") else 0.0
            state[f"{prefix}bn.{name}"] = (middle + 0.2 * chance.random(shape[3:])).astype(np.float32)

    fill(shapes(), "")
    return state


def _oihw(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2])


def images(num: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


def features(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sets of correlated non-negative features, float32 `[num, 2048]`."""
    chance = np.random.default_rng(2)
    mix = chance.standard_normal((2048, 2048), np.float32) / 45
    a, b = (np.maximum(chance.standard_normal((num, 2048), np.float32) @ mix + shift, 0) for shift in (0.1, 0.2))
    return a, b


def jax_features(num: int, size: int, step: int, batch: int) -> None:
    from jaxgen.host import use_cpu_cores

    use_cpu_cores()
    import jax

    from jaxgen.interop.feature_networks.inception import inception_params
    from jaxgen.metrics.networks.inception import Inception

    network = Inception(given=inception_params(random_state()))
    serve_features(lambda part: network(part, batch).features, images(num, size), step, devices=jax.device_count())


def torch_features(num: int, size: int, step: int, batch: int) -> None:
    import torch

    import_peer()
    import torch_fidelity.feature_extractor_inceptionv3 as peer

    state = {name: torch.from_numpy(value) for name, value in random_state().items()}
    state |= {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(0) for name in state if "running_var" in name
    }
    peer.load_state_dict_from_url = lambda *_, **__: state
    network = peer.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])

    def extract(part: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(part).permute(0, 3, 1, 2)
        with torch.no_grad():
            return np.concatenate([network(x[i : i + batch])[0].numpy() for i in range(0, len(x), batch)])

    serve_features(extract, images(num, size), step, threads=torch.get_num_threads(), version=torch.__version__)


def serve_features(extract: Callable[[np.ndarray], np.ndarray], data: np.ndarray, size: int, **facts: Any) -> None:
    """Takes steps of `size` images, one after another; some first features are told, to be compared."""
    kept: list[np.ndarray] = []
    first: list[list[float]] = []

    def step() -> None:
        start = len(kept) * size % len(data)
        kept.append(extract(data[start : start + size]))
        if len(kept) == 1:
            first.extend(kept[0][:2, ::256].tolist())

    serve(step, first=first, **facts)


def serve_distance(distance: Callable[[], float]) -> None:
    values: list[float] = []
    serve(lambda: values.append(distance()), values=values)


def jax_distance(num: int) -> None:
    from jaxgen.metrics.distributions.frechet import frechet_distance

    a, b = features(num)
    serve_distance(lambda: frechet_distance(a, b))


def torch_distance(num: int) -> None:
    import torch

    import_peer()
    from torch_fidelity import metric_fid as peer

    a, b = (torch.from_numpy(x) for x in features(num))

    def distance() -> float:
        found = peer.fid_statistics_to_metric(*map(peer.fid_features_to_statistics, (a, b)), False)
        return float(next(iter(found.values())))

    serve_distance(distance)


def import_peer() -> None:
    """torch-fidelity imports torchvision, which the parity tests stand in for where it is not installed."""
    sys.path.append(os.fspath(harness.ROOT / "tests" / "parity"))
    import conftest  # noqa: F401


def compare(part: str, rounds: int, turn: int) -> tuple[dict[str, Any], float]:
    """Times one half on both sides in turns; returns the report, and the ratio of their peak memory."""
    names = [f"{side}-{part}" for side in ("jaxgen", "torch")]
    command = [sys.executable, "-m", "benchmarks.features_vs_torch_fidelity", *sys.argv[1:]]
    workers = [Worker(name, [*command, "--worker", name], {"JAX_PLATFORMS": "cpu"}) for name in names]
    told, tolerance = {"features": ("first", 1e-3), "distance": ("values", 1e-5)}[part]
    ours, theirs = (worker.facts.pop(told) for worker in workers)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=1e-3 if part == "features" else 0)
    found = report(alternate(workers, max(2, rounds), turn=turn), *names)
    memory = workers[0].peak_gib / workers[1].peak_gib
    for worker in workers:
        worker.close()
    return found, memory


def work(worker: str, num: int, step: int, size: int, batch: int) -> None:
    """Does a worker's side."""
    if worker.endswith("-features"):
        {"jaxgen-features": jax_features, "torch-features": torch_features}[worker](num, size, step, batch)
    else:
        rows = max(num, 4096)  # fewer than features would leave eigenvalues that are rounding alone
        {"jaxgen-distance": jax_distance, "torch-distance": torch_distance}[worker](rows)


def main(
    num: Annotated[int, "images, and rows of features (at least 4096)"] = 5000,
    step: Annotated[int, "images in a timed step"] = 100,
    size: Annotated[int, "height and width of the images"] = 64,
    batch: int = 50,
    distances: Annotated[int, "timed distances of each side; 0 leaves them out"] = 9,
    worker: Annotated[str, "for the script's own use"] = "",
) -> None:
    if worker:
        return work(worker, num, step, size, batch)
    found, memory = compare("features", num // step, turn=2)
    ratios = {"features": found["ratio"], "memory": memory}
    if distances:
        ratios["distance"] = compare("distance", distances, turn=1)[0]["ratio"]
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} (bar {BARS[name]})")
    print(json.dumps({"num": num, **ratios}))


if __name__ == "__main__":
    sys.exit(harness.run(main))
