"""Makes a trained model's quiz for people: its samples against held-out images."""

from __future__ import annotations

import numpy as np
from etils import epath

from jaxgen.report.quiz import write_quiz
from jaxgen.sampling.restore import TrainedModel


def make_quiz(workdir: epath.PathLike, trained: TrainedModel, seed: int, num: int) -> epath.Path:
    """Writes `workdir/quiz.html` and returns its path: `num` pairs, or as many as there are held-out images.

    The samples are those of `--mode=sample` with this seed; the held-out images are drawn with it.

    Raises:
      UserError: where the method makes no images, one is not finite, or there are no held-out ones.
    """
    workdir, config = epath.Path(workdir), trained.generator.config
    held_out = trained.generator.source(config.data.eval_split)
    count = min(num, len(held_out))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(held_out))[:count])
    samples = trained.generator.images(trained.model, seed, count).need_finite("a quiz shows sound images only")
    details = {
        "run": workdir.name,
        "method": config.method.name,
        "step": trained.step,
        "training images": trained.images,
        "held out": f"{held_out.name}/{held_out.split}",
    }
    return write_quiz(
        workdir / "quiz.html",
        samples.images,
        held_out.take(list(chosen))["image"],
        seed=seed,
        pairs=count,
        title=f"{config.method.name} on {held_out.name}, after {trained.images:,} training images",
        details=details,
    )
