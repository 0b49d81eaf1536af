"""Students that learn from a GAN's labelled images: the mean IoU on real held-out images, beside their controls.

    python main.py --config=configs/stylegan2_shapes.py --workdir=runs/stylegan2_shapes
    python main.py --config=configs/segmenter_shapes.py --workdir=runs/segmenter_shapes
    python -m studies.dataset_gan --gan=runs/stylegan2_shapes --annotator=runs/segmenter_shapes --out=runs/dataset_gan

Every student is configs/segmenter_shapes.py. Rows, by what it learned from:

    real              as many real images as are labelled, with exact masks
    labelled          the labelled generated images, with the annotator's masks
    pairs             generated pairs whose masks are those of an ensemble on the generator's layers, filtered
    pairs, no filter  the same, without the filter
    raw pixels        pairs of an ensemble on colours, filtered
    diffusion         pairs of an ensemble on the layers of --diffusion, filtered
    vae               pairs of an ensemble on the layers of the encoder of --vae, filtered
    annotator         what labels in the place of a person, itself

`agreement` is the mean IoU of the ensemble with the annotator on generated images that none learned from. Each row is
appended to OUT/table.jsonl, and the same command goes on where it stopped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxgen.editing.dataset_gan import __main__ as dataset_gan
from jaxgen.errors import UserError
from studies import harness

FEATURES = {"pairs": "generator", "raw pixels": "pixels", "diffusion": "diffusion", "vae": "vae"}  # by the row


def measured(workdir: Path) -> float:
    """Returns the mean IoU of a run's masks on the held-out split of its data."""
    from jaxgen.evaluation.evaluate import evaluate

    found = harness.trained(workdir)
    return round(float(evaluate(found.generator, found.model)["mean_iou"]["value"]), 4)


def student(out: Path, name: str, seed: int, *settings: str) -> float:
    """Trains a student, and returns its mean IoU on real images."""
    workdir = out / f"student_{name.replace(', ', '_').replace(' ', '_')}_{seed}"
    harness.train("segmenter_shapes", workdir, *settings, f"seed={seed}", "train.tensorboard=False",
                  "evaluate.at_end=False")  # fmt: skip
    return measured(workdir)


def make(*words: str) -> None:
    """Runs a use of `jaxgen.editing.dataset_gan`. Raises a UserError where it ends with an error."""
    if dataset_gan.main(words):
        raise UserError(f"{words[0]} ended with an error, which it has printed above.")


def ensemble(out: Path, name: str, base: str, seed: int) -> Path:
    """Trains the heads of one kind of features; returns their run."""
    workdir = out / f"ensemble_{name.replace(' ', '_')}_{seed}"
    own = [] if name == "raw pixels" else [f"init_from.pretrained={base}"]
    settings = [*own, f"data.source=npz:{out / 'labelled.npz'}", f"seed={seed}", "train.tensorboard=False"]
    config = f"{harness.config_path('dataset_gan_shapes')}:{FEATURES[name]}"
    words = harness.command(config, workdir, *settings, "evaluate.at_end=False")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return workdir


def row(out: Path, name: str, base: str, gan: str, source: str, seed: int, num: int, drop: float) -> dict[str, float]:
    """Returns the numbers of pairs that the ensemble of a row has labelled, and of the student that they taught."""
    kind = name.removesuffix(", no filter")
    workdir = ensemble(out, kind, base, seed)
    agreement, path = measured(workdir), out / f"{workdir.name}_{drop:g}.npz"
    own = () if kind == "pairs" else (f"--gan={gan}",)
    make("pairs", f"--workdir={workdir}", f"--num={num}", f"--drop={drop}", f"--seed={seed + 1}", f"--real={source}",
         f"--out={path}", *own)  # fmt: skip
    with np.load(path) as found:
        count = len(found["train_images"])
    return {"mean_iou": student(out, name, seed, f"data.source=npz:{path}"), "agreement": agreement, "pairs": count}


def main(
    gan: Annotated[str, "the workdir of a StyleGAN2 of shapes"],
    annotator: Annotated[str, "the workdir of configs/segmenter_shapes.py on all real images"],
    out: Path,
    diffusion: Annotated[str, "the workdir of a diffusion model, such as that of configs/ddpm_shapes.py"] = "",
    vae: Annotated[str, "the workdir of an autoencoder, such as that of configs/kl_autoencoder_shapes.py"] = "",
    source: Annotated[str, "real images with masks"] = "caption_shapes:halves",
    labels: Annotated[int, "labelled images"] = 16,
    num: Annotated[int, "pairs that are drawn"] = 2000,
    drop: Annotated[float, "the share that the filter drops"] = 0.1,
    seeds: Annotated[tuple[int, ...], "of heads, students and pairs"] = (0, 1, 2),
) -> None:
    harness.prepare()
    out.mkdir(parents=True, exist_ok=True)
    rows = harness.Rows(out / "table.jsonl", labels=labels, num=num, source=source)
    if not (out / "labelled.npz").exists():
        make("draw", f"--workdir={gan}", f"--num={labels + 100}", f"--out={out / 'drawn'}")
        make("label", f"--codes={out / 'drawn' / 'codes.npz'}", f"--annotator={annotator}", f"--train={labels}",
             f"--out={out / 'labelled.npz'}")  # fmt: skip
    rows.get({"row": "annotator", "seed": 0}, lambda: {"mean_iou": measured(Path(annotator))})
    shares = {"pairs": drop, "pairs, no filter": 0.0, "raw pixels": drop}
    given = {name: run for name, run in (("diffusion", diffusion), ("vae", vae)) if run}
    shares |= dict.fromkeys(given, drop)
    own = _with_real(out, source)
    for seed in seeds:
        key, few = {"seed": seed}, (f"data.source={source}", f"data.examples={labels}")
        for name, settings in (("real", few), ("labelled", (f"data.source=npz:{own}",))):
            if not rows.where(row=name, **key):
                rows.add({"row": name, **key, "mean_iou": student(out, name, seed, *settings)})
        for name, share in shares.items():
            if not rows.where(row=name, **key):
                rows.add({"row": name, **key, **row(out, name, given.get(name, gan), gan, source, seed, num, share)})
    heads = ["learned from", "mean IoU on real images", "agreement with the annotator"]
    lines: list[list[str]] = []
    for name in ("real", "labelled", *shares, "annotator"):
        found = rows.where(row=name)
        columns = ([one[key] for one in found if key in one] for key in ("mean_iou", "agreement"))
        lines.append([name, *map(harness.mean_and_deviation, columns)])
    print(harness.table(heads, lines))


def _with_real(out: Path, source: str) -> Path:
    """Returns a file of the labelled generated images, with real ones as the split `test`."""
    from jaxgen.editing.dataset_gan.commands import held_out, write_arrays

    path = out / "labelled_with_real.npz"
    with np.load(out / "labelled.npz") as found:
        arrays = {"train_image": found["train_images"], "train_mask": found["train_masks"]}
    write_arrays(path, arrays | held_out(source, 500, arrays["train_image"].shape[1:]))
    return path


if __name__ == "__main__":
    sys.exit(harness.run(main))
