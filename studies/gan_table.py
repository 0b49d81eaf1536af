"""Every two-player method on 8x8 digits beside its control: trained, judged, tabulated.

    python -m studies.gan_table --out=runs/gan_table

Each row of `ROWS` is a shipped config, or one with its idea switched off, and the seeds that it is trained with; a run
is `python main.py` in a folder of its own under --out, so that the same command goes on where it stopped. What was
measured is appended to OUT/table.jsonl, one line for each run, and printed as Markdown: means over seeds, and the
standard deviation where there are several. `--only=infogan,msgan` takes some methods, `--table` prints and stops.

Judged are 1,000 samples by the averaged generator, the classes in turn, against the 500 held-out digits:

    excess       (Fréchet distance - floor) / (noise - floor) in the digits judge's features
    label        share of samples that the judge sees as the class that was asked for
    CAS          accuracy on held-out digits of a classifier that learned from 1,297 samples only
    diversity    mean distance of two samples of a class (all samples, where there are no classes), over that of
                 held-out digits: of pixels, and of the judge's features
    purity       share of samples in the class that most samples of their categorical code are in (InfoGAN)
    energy       mean reconstruction error of held-out digits and of samples (EBGAN)
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np

from jaxgen.host import use_compilation_cache, use_cpu_cores

MAIN = pathlib.Path(__file__).parent.parent / "main.py"
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
        "conditional GAN, the critic is not told": ("cgan_digits", ("method.critic.conditioning=none",), (0,)),
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
        "WGAN, one critic step": ("wgan_digits", ("method.critic_steps=1",), (0,)),
    },
    "wgan_gp": {
        "WGAN-GP": ("wgan_gp_digits", (), (0,)),
        "WGAN-GP, no penalty": ("wgan_gp_digits", ("method.gradient_penalty=0.0",), (0,)),
    },
}  # fmt: skip

# column: the name in metrics.json
JUDGED = {
    "frechet": "frechet_digits",
    "entropy": "class_entropy",
    "precision": "precision_digits",
    "recall": "recall_digits",
    "label": "label_accuracy",
}
COLUMNS = ("excess", "entropy", "precision", "recall", "label", "CAS", "diversity", "diversity_features", "purity",
           "energy_of_real", "energy_of_fake", "seconds")  # fmt: skip


def train(config: str, overrides: tuple[str, ...], seed: int, workdir: pathlib.Path) -> float:
    """Trains to the end, without judging there. Returns the process's CPU seconds, 0 where it was finished already."""
    begun = os.times()
    command = [sys.executable, str(MAIN), f"--config={MAIN.parent / 'configs' / config}.py", f"--workdir={workdir}"]
    command += [f"--config.seed={seed}", "--config.evaluate.at_end=False", "--config.train.tensorboard=False"]
    command += [f"--config.{override}" for override in overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = os.times()
    return (ended.children_user - begun.children_user) + (ended.children_system - begun.children_system)


def spread(values: np.ndarray, labels: np.ndarray | None) -> float:
    """Mean Euclidean distance of two different examples `[N, D]` of a class, or of all."""
    from jaxgen.metrics.distances import class_diversity, diversity

    return diversity(values) if labels is None else float(np.mean(list(class_diversity(values, labels).values())))


def purity(codes: np.ndarray, classes: np.ndarray) -> float:
    """Share of examples that are of the most frequent class of their code; chance is about 1 / classes."""
    return sum(np.bincount(classes[codes == code]).max() for code in np.unique(codes)) / len(codes)


def measure(workdir: pathlib.Path, num: int) -> dict[str, float]:
    """The numbers of one run; see the module."""
    import jax

    from jaxgen.data.transforms import to_float, to_uint8
    from jaxgen.evaluation.evaluate import SEED, evaluate
    from jaxgen.methods.gans.ebgan import EBGAN
    from jaxgen.methods.gans.infogan import InfoGAN
    from jaxgen.metrics.classification import classification_accuracy_score
    from jaxgen.metrics.digits import JUDGE
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    config = stored_config(workdir)
    config.evaluate.num = num
    trained = restore(config, workdir)
    generator, model, method = trained.generator, trained.model, trained.generator.method
    judged = evaluate(generator, model)
    evidence, real = judged.evidence, generator.source(config.data.eval_split).arrays
    labels = real["label"] if evidence.labels is not None else None
    seen, of_real = (evidence.features(JUDGE, which).features for which in ("samples", "held_out"))
    found = {"excess": judged["frechet_digits"]["excess"]}
    found |= {name: judged[key]["value"] for name, key in JUDGED.items() if key in judged}
    found |= {
        "diversity": spread(_flat(evidence.samples), evidence.labels) / spread(_flat(evidence.held_out), labels),
        "diversity_features": spread(seen, evidence.labels) / spread(of_real, labels),
    }
    if evidence.labels is not None:
        train = generator.source(config.data.split).arrays
        more = generator.images(model, SEED + 1, len(train["image"]))
        score = classification_accuracy_score(
            more.images, more.labels, real["image"], real["label"], JUDGE.network,
            steps=600, real=(train["image"], train["label"]),
        )  # fmt: skip
        found |= {"CAS": score.samples.value, "CAS_of_real": score.real.value}
    keys = jax.random.split(jax.random.key(SEED), num)
    if isinstance(method, InfoGAN):
        z, codes = method.draw(keys)
        images = np.asarray(to_uint8(jax.jit(method.paint)(model, z, {})))
        classes = JUDGE(images).probabilities.argmax(axis=1)
        found["purity"] = purity(np.asarray(codes["categorical"])[:, 0], classes)
    if isinstance(method, EBGAN):

        @jax.jit
        def energy(model: Any, images: jax.Array) -> jax.Array:
            return method.look(model.params, model.memory, images, {}, train=False)[0]["energy"].mean()

        for name, images in (("real", evidence.held_out), ("fake", evidence.samples)):
            found[f"energy_of_{name}"] = float(energy(model, to_float({"image": images})["image"]))
    return {name: round(float(value), 5) for name, value in found.items()}


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64) / 127.5


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; rows of runs that are not done yet are left out."""
    lines = ["| | seeds | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in (name for group in ROWS.values() for name in group):
        of = [row for row in rows if row["row"] == name]
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in of if column in row]
            digits = 0 if column == "seconds" else 4 if column == "excess" else 3
            several = len(values) > 1 and column != "seconds"
            deviation = f" ({np.std(values):.{digits}f})" if several else ""
            cells.append(f"{np.mean(values):.{digits}f}{deviation}" if values else "")
        if of:
            lines.append(f"| {name} | {len(of)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="methods, separated by commas: " + ", ".join(ROWS))
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    unknown = [name for name in options.only.split(",") if name and name not in ROWS]
    if unknown:
        parser.error(f"--only has {unknown[0]!r}, which is none of {', '.join(ROWS)}.")
    use_cpu_cores()
    use_compilation_cache()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "table.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["row"], row["seed"], row["num"]) for row in rows}
    asked = options.only.split(",") if options.only else list(ROWS)
    for method in () if options.table else asked:
        for i, (name, (config, overrides, seeds)) in enumerate(ROWS[method].items()):
            for seed in seeds:
                if (name, seed, options.num) in done:
                    continue
                workdir = options.out / f"{method}{'_control' * bool(i)}{i if i > 1 else ''}_{seed}"
                begun = time.perf_counter()
                seconds = train(config, overrides, seed, workdir)
                row = {"row": name, "seed": seed, "num": options.num, "seconds": round(seconds, 1)}
                row |= measure(workdir, options.num)
                rows.append(row)
                with file.open("a") as opened:
                    opened.write(json.dumps(row) + "\n")
                print(row, f"{time.perf_counter() - begun:.0f} s", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
