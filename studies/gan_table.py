"""Trains, evaluates and tabulates every two-player method on 8x8 digits beside its control.

    python -m studies.gan_table --out=runs/gan_table

Each row of `ROWS` is a shipped config, or one with its idea switched off, and the seeds that it is trained with; a run
is `python main.py` in a folder of its own under --out, so that the same command goes on where it stopped. What was
measured is appended to OUT/table.jsonl, one line for each run, and printed as Markdown: means over seeds, and the
standard deviation where there are several. `--only=infogan,msgan` takes some methods, `--table_only` prints and stops.

Evaluated are 1,000 samples by the averaged generator, the classes in turn, against the 500 held-out digits:

    excess       (Fréchet distance - floor) / (noise - floor) in the digits classifier's features
    label        share of samples that the classifier sees as the class that was asked for
    CAS          accuracy on held-out digits of a classifier that learned from 1,297 samples only
    diversity    mean distance of two samples of a class (all samples, where there are no classes), over that of
                 held-out digits: of pixels, and of the classifier's features
    purity       share of samples in the class that most samples of their categorical code are in (InfoGAN)
    energy       mean reconstruction error of held-out digits and of samples (EBGAN)
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxgen.errors import UserError
from studies import harness

THREE = (0, 1, 2)

# method -> {row: (config, overrides, seeds)}; the first row is the method, what follows are its controls
ROWS: dict[str, dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]] = {
    "gan": {
        "GAN, non-saturating": ("gan_digits", (), THREE),
        "GAN, minimax": ("gan_digits", ("method.loss.name=minimax",), (0,)),
    },
    "lsgan": {"LSGAN": ("lsgan_digits", (), (0,))},
    "hinge": {"hinge GAN": ("hinge_gan_digits", (), (0,))},
    "cgan": {
        "conditional GAN": ("cgan_digits", (), (0,)),
        "conditional GAN, the discriminator is not told": (
            "cgan_digits", ("method.discriminator.conditioning=none",), (0,),
        ),
    },
    "acgan": {
        "AC-GAN": ("acgan_digits", (), THREE),
        "AC-GAN, the generator's class term off": ("acgan_digits", ("method.generator_class_weight=0.0",), (0,)),
    },
    "infogan": {
        "InfoGAN": ("infogan_digits", (), THREE),
        "InfoGAN, lambda = 0": (
            "infogan_digits", ("method.information=0.0", "method.continuous_information=0.0"), THREE,
        ),
    },
    "ebgan": {
        "EBGAN": ("ebgan_digits", (), (0,)),
        "EBGAN, no pulling away": ("ebgan_digits", ("method.pull_away=0.0",), (0,)),
    },
    "msgan": {
        "MSGAN": ("msgan_digits", (), THREE),
        "MSGAN, mode seeking off": ("msgan_digits", ("method.mode_seeking=0.0",), THREE),
    },
    "wgan": {
        "WGAN, clipped": ("wgan_digits", (), (0,)),
        "WGAN, one discriminator step": ("wgan_digits", ("method.discriminator_steps=1",), (0,)),
    },
    "wgan_gp": {
        "WGAN-GP": ("wgan_gp_digits", (), (0,)),
        "WGAN-GP, no penalty": ("wgan_gp_digits", ("method.gradient_penalty=0.0",), (0,)),
    },
}  # fmt: skip

# column: the name in metrics.json
SCORES = {
    "frechet": "frechet_digits",
    "entropy": "class_entropy",
    "precision": "precision_digits",
    "recall": "recall_digits",
    "label": "label_accuracy",
}
COLUMNS = ("excess", "entropy", "precision", "recall", "label", "CAS", "diversity", "diversity_features", "purity",
           "energy_of_real", "energy_of_fake", "seconds")  # fmt: skip


def spread(values: np.ndarray, labels: np.ndarray | None) -> float:
    """Returns the mean Euclidean distance of two different examples `[N, D]` of a class, or of all."""
    from jaxgen.metrics.distributions.diversity import class_diversity, diversity

    return diversity(values) if labels is None else float(np.mean(list(class_diversity(values, labels).values())))


def purity(codes: np.ndarray, classes: np.ndarray) -> float:
    """Share of examples that are of the most frequent class of their code; chance is about 1 / classes."""
    return sum(np.bincount(classes[codes == code]).max() for code in np.unique(codes)) / len(codes)


def measure(workdir: Path, num: int) -> dict[str, float]:
    """Returns the numbers of one run; see the module."""
    import jax

    from jaxgen.arrays import to_uint8
    from jaxgen.data.transforms import to_float
    from jaxgen.evaluation.evaluate import SEED, evaluate
    from jaxgen.methods.gans.ebgan import EBGAN
    from jaxgen.methods.gans.infogan import InfoGAN
    from jaxgen.metrics.analysis.classification import classification_accuracy_score
    from jaxgen.metrics.networks.digits import Digits
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    config = stored_config(workdir)
    config.evaluate.num = num
    trained = restore(config, workdir)
    generator, model, method = trained.generator, trained.model, trained.generator.method
    scores = evaluate(generator, model)
    images, real = scores.images, generator.source(config.data.eval_split).arrays
    labels = real["label"] if images.labels is not None else None
    seen, of_real = (images.summary(Digits(), which).features for which in ("samples", "held_out"))
    found = {"excess": scores["frechet_digits"]["excess"]}
    found |= {name: scores[key]["value"] for name, key in SCORES.items() if key in scores}
    found |= {
        "diversity": spread(_flat(images.samples), images.labels) / spread(_flat(images.held_out), labels),
        "diversity_features": spread(seen, images.labels) / spread(of_real, labels),
    }
    if images.labels is not None:
        train = generator.source(config.data.split).arrays
        more = generator.images(model, SEED + 1, len(train["image"]))
        score = classification_accuracy_score(
            more.images, more.labels, real["image"], real["label"], Digits().network,
            steps=600, real=(train["image"], train["label"]),
        )  # fmt: skip
        found |= {"CAS": score.samples.value, "CAS_of_real": score.real.value}
    keys = jax.random.split(jax.random.key(SEED), num)
    if isinstance(method, InfoGAN):
        z, codes = method.sample_z(keys)
        drawn = np.asarray(to_uint8(jax.jit(method.sample_from_z)(model, z, {})))
        classes = Digits()(drawn).probabilities.argmax(axis=1)
        found["purity"] = purity(np.asarray(codes["categorical"])[:, 0], classes)
    if isinstance(method, EBGAN):

        @jax.jit
        def energy(model: Any, images: jax.Array) -> jax.Array:
            return method.discriminate(model.params, model.memory, images, {}, train=False)[0]["energy"].mean()

        for name, side in (("real", images.held_out), ("fake", images.samples)):
            found[f"energy_of_{name}"] = float(energy(model, to_float({"image": side})["image"]))
    return {name: round(float(value), 5) for name, value in found.items()}


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64) / 127.5


def table(rows: harness.Rows) -> str:
    """Markdown; rows of runs that are not done yet are left out."""
    lines = []
    for name in (name for group in ROWS.values() for name in group):
        of, cells = rows.where(row=name), []
        for column in COLUMNS:
            values = [row[column] for row in of if column in row]
            if column == "seconds":
                cells.append(f"{np.mean(values):.0f}" if values else "")
            else:
                cells.append(harness.mean_and_deviation(values, digits=4 if column == "excess" else 3))
        if of:
            lines.append([name, len(of), *cells])
    return harness.table(["", "seeds", *COLUMNS], lines)


def trained(config: str, overrides: tuple[str, ...], seed: int, workdir: Path, num: int) -> dict[str, float]:
    """Returns the numbers of one run, which is trained first where its folder is not finished."""
    settings = (f"seed={seed}", "evaluate.at_end=False", "train.tensorboard=False", *overrides)
    seconds = harness.train(config, workdir, *settings)
    return {"seconds": round(seconds, 1), **measure(workdir, num)}


def main(
    out: Path,
    only: Annotated[tuple[str, ...], "methods, separated by commas: " + ", ".join(ROWS)] = (),
    num: int = 1000,
    table_only: Annotated[bool, "print what is there, and stop"] = False,
) -> None:
    unknown = [name for name in only if name not in ROWS]
    if unknown:
        raise UserError(f"--only has {unknown[0]!r}, which is none of {', '.join(ROWS)}.")
    harness.prepare()
    rows = harness.Rows(out / "table.jsonl", num=num)
    for method in () if table_only else only or ROWS:
        for i, (name, (config, overrides, seeds)) in enumerate(ROWS[method].items()):
            for seed in seeds:
                workdir = out / f"{method}{'_control' * bool(i)}{i if i > 1 else ''}_{seed}"
                make = functools.partial(trained, config, overrides, seed, workdir, num)
                rows.get({"row": name, "seed": seed}, make)
    print(table(rows))


if __name__ == "__main__":
    sys.exit(harness.run(main))
