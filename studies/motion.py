"""Do the frames of videos belong together: beside images drawn one by one, shuffled frames, and the true videos?

    python main.py --config=configs/motion_shapes.py --workdir=runs/motion_shapes
    python -m studies.motion --workdir=runs/motion_shapes --out=motion.jsonl

All rows are for the captions of the same held-out videos. `independent frames` are images of the model below, drawn
from the noise of the same frames without the temporal layers. `shuffled frames` are the videos' own in another order.
The numbers are those of the metric `tracks`: the error of the object's track against even motion and the length of its
way in pixels, flicker off the object, and the change of the object's colour. `error / way` is the first by the second:
a video that stands still has little error, and as little way. `start` is the distance in pixels between the object's
place in the first frame and that of the true video, whose caption names one of nine places. `with a track` is the share
of videos that show an object in every frame. A picture of frames is written beside --out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxgen.codecs.frames import flat
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.tuned import Tuned
from jaxgen.metrics.analysis.tracks import centres
from jaxgen.metrics.asked.tracks import NUMBERS, mean_of, measured
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.held_out import sample_keys
from studies import harness

Videos = UInt8[np.ndarray, "N F H W C"]
SHOWN = 6


def frames_alone(generator: Generator, trained: Tuned, model: Model, seed: int, num: int, frames: int) -> Videos:
    """Returns images of the model below for each frame of `num` videos, drawn from the videos' own noise."""
    keys = sample_keys(jnp.uint32(seed), jnp.arange(num))
    noise = np.asarray(flat(per_image_noise(keys, 0, trained.method.shape)))  # type: ignore[attr-defined]
    asked = generator.held_out.conditions(np.arange(num), None)
    given = {name: np.repeat(np.asarray(rows), frames, axis=0) for name, rows in asked.items()}
    params = {group: tree for group, tree in model.params.items() if group not in trained.grafts}
    below = generator.changed(trained.trained, {**given, "noise": noise})
    images = below.draw(Model(params=params, memory=model.memory), seed, num * frames).main
    return images.reshape(num, frames, *images.shape[1:])


def row_of(videos: Videos, truth: Videos) -> dict[str, float]:
    """Returns the means of all numbers over videos."""
    found = {number: mean_of(values) for number, values in measured(videos).items()}
    places = centres(videos)
    apart = np.linalg.norm(places[:, 0] - centres(truth)[:, 0], axis=-1)
    found["error / way"] = found["track_error"] / found["track_length"]
    return {**found, "start": mean_of(apart), "with a track": float(np.isfinite(places).all((1, 2)).mean())}


def write_pictures(path: Path, sides: Mapping[str, Videos]) -> None:
    """Writes a line of frames for the first videos of each row, one row below the other, and the videos as a GIF."""
    videos = np.concatenate([found[:SHOWN] for found in sides.values()])
    save_png(path.with_suffix(".png"), grid(videos.reshape(-1, *videos.shape[2:]), videos.shape[1]))
    save_gif(path.with_suffix(".gif"), animation(videos.swapaxes(0, 1), columns=SHOWN), ms=120, hold_last_ms=600)


def main(
    workdir: Annotated[str, "a run of the graft motion"],
    out: Annotated[Path, "where rows are kept"],
    num: Annotated[int, "videos a row"] = 64,
    seed: int = 0,
) -> None:
    trained = harness.trained(workdir)
    generator, method, model = trained.generator, trained.generator.method, trained.model
    if not isinstance(method, Tuned) or method.gives != "video":
        raise UserError(f"--workdir={workdir} is no run of the graft motion: it gives no videos.")
    samples = generator.draw(model, seed, num, asked=True)
    videos, truth = samples.main, samples.asked["video"]
    chance = np.random.default_rng(seed)
    sides = {
        "true videos": truth,
        "videos": videos,
        "independent frames": frames_alone(generator, method, model, seed, num, videos.shape[1]),
        "shuffled frames": np.stack([video[chance.permutation(len(video))] for video in videos]),
    }
    rows = harness.Rows(out, workdir=workdir, num=num, seed=seed)
    for name, found in sides.items():
        rows.get({"frames": name}, lambda found=found: row_of(found, truth))  # type: ignore[misc]
    heads = [*NUMBERS, "error / way", "start", "with a track"]
    print(harness.table(["frames", *heads], [[row["frames"], *(row[head] for head in heads)] for row in rows]))
    write_pictures(out, sides)


if __name__ == "__main__":
    sys.exit(harness.run(main))
