"""Measures what each way of tuning costs at the size of Stable Diffusion 1.5, beside what the plan says.

    python -m benchmarks.tune_stable_diffusion --folder=sd15 --out=tune.jsonl
    python -m benchmarks.tune_stable_diffusion --folder=sd15 --out=tune.jsonl --methods=low_rank --topologies=v5e:2x4

`--folder` is a folder of diffusers; where there is none, one of random bfloat16 weights in the shapes of Stable
Diffusion 1.5 is written there (2.1 GB). Each method is planned for each of `--topologies`, then trained for some
updates of one image, each in a process of its own, and one row of a table is printed: how many parameters learn, bytes
of its checkpoint, the plan's bytes on one device, the most that the process held (resident, with Python, JAX and what
compiling needs), and seconds of an update. What the plan says does not fit into the memory that is free is planned
only. Frozen weights are bfloat16, what learns and the arithmetic float32; there is no average (`ema_decay=0`).

`--out` keeps the rows, and a second call goes on where the first ended. Neither torch nor diffusers is needed.
"""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import check, defaults, section
from jaxgen.errors import UserError
from jaxgen.report.numbers import number
from jaxgen.report.plan import size
from studies import harness

KV = r"cross_attention/(key|value)/"
PROJECTIONS = r"(self|cross)_attention/(query|key|value|out)$"
WORD = {"name": "token_rows", "word": "<new1>", "initial": "a"}
METHODS: dict[str, dict[str, Any]] = {
    "textual_inversion": {"token": WORD},
    "dreambooth": {"all": {"name": "leaves"}},
    "custom_diffusion": {"kv": {"name": "leaves", "where": KV}, "token": WORD},
    "low_rank": {"lora": {"name": "low_rank", "rank": 4, "where": PROJECTIONS}},
    "control": {"control": {"name": "control"}},
}
HEADS = ("method", "learns", "checkpoint", "plan for {}", "measured", "seconds an update")


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer of CLIP's kind whose pieces are single letters."""
    letters = [chr(i) for i in range(ord("!"), ord("~") + 1)]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"model_max_length": 77, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_pictures(folder: Path, resolution: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(4):
        picture = np.random.default_rng(i).integers(0, 256, (resolution, resolution, 3)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.png")


def config_of(method: str, folder: Path, pictures: Path, resolution: int, updates: int) -> ConfigDict:
    """Returns the config of one method on a folder."""
    config = defaults()
    config.init_from.pretrained, config.init_from.dtype = str(folder), "bfloat16"
    config.method = section(name="tuned", grafts=section(**{k: section(**v) for k, v in METHODS[method].items()}))
    config.data.update(source=f"folder:{pictures}", split="all", eval_split="all", resolution=resolution, channels=3)
    config.data.captions = ("a {}",) if "token" in METHODS[method] else ("a",)
    if method == "control":
        config.data.corruptions.hint = section(name="edges")
    config.sampler = section(name="ddim", steps=2, clip=False, guidance_scale=7.5)
    config.optimizer.update(name="adamw", learning_rate=1e-5, warmup_images=0)
    config.train.update(
        batch_size=1, total_images=updates, log_every_images=1, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.0, tensorboard=False,
    )  # fmt: skip
    config.evaluate.update(num=2, batch_size=1, at_end=False)
    check(config)
    return config


def planned(config: ConfigDict, topology: str) -> dict[str, float]:
    """Returns the bytes on one device, and how many parameters learn."""
    from jaxgen.planning.topology import use_topology

    use_topology(topology)
    from jaxgen.planning.plan import plan

    if topology.startswith("v"):  # as many images as devices
        config.train.batch_size = 8
    found = plan(config, topology, sampler=False, suggest=False)
    memory = found.programs[0].memory
    state = sum(found.state.values())
    return {"learned": found.parameters, "state": state, "total": memory.get("total") or 0, "fits": found.fits}


def trained(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Returns the bytes of the checkpoint, the peak of this process, and the seconds of the fastest update."""
    from jaxgen.runs.workdir import open_workdir
    from jaxgen.train.loop import Trainer

    config, _ = open_workdir(workdir, config, training=True)
    trainer = Trainer(config, workdir)
    trainer.train()
    trainer.checkpoints.close()
    trainer.loader.close()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    last = max((workdir / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    written = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"checkpoint": written, "peak": peak, "seconds": 1 / max(speeds) if speeds else float("nan")}


def available() -> int:
    """Returns the bytes of memory that are free here."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise UserError("this machine does not say how much memory is free; name the methods that fit by --methods.")


def measured(command: list[str]) -> dict[str, float]:
    """Runs this file in a process of its own; returns the JSON of its last line, or why there is none."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tune_stable_diffusion", *command], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(method: str, folder: Path, resolution: int, updates: int, topologies: tuple[str, ...]) -> dict[str, Any]:
    """Returns the row of one method."""
    common = [f"--folder={folder}", f"--resolution={resolution}", f"--updates={updates}", f"--one={method}"]
    row: dict[str, Any] = {}
    for topology in topologies:
        row[topology] = measured([*common, f"--topologies={topology}"])
    needs = max((plan["total"] for name, plan in row.items() if name.startswith("cpu")), default=0)
    if needs < 0.9 * available():
        row |= measured([*common, "--topologies="])
    return row


def line(method: str, row: dict[str, Any], topologies: tuple[str, ...]) -> list[str]:
    """Returns the cells of a method's row."""
    learned = next((f"{row[name]['learned']:,}" for name in topologies), "")
    plans = [size(row[name]["total"]) + ("" if row[name]["fits"] else ", does not fit") for name in topologies]
    if "peak" not in row:
        return [method, learned, "", *plans, "planned only", ""]
    return [method, learned, size(row["checkpoint"]), *plans, size(row["peak"]), number(row["seconds"])]


def main(
    folder: Annotated[Path, "a folder of diffusers; made where there is none"],
    out: Annotated[Path, "where rows are kept"] = Path("tune.jsonl"),
    methods: Annotated[tuple[str, ...], "some of textual_inversion, dreambooth, ..., separated by commas"] = (),
    topologies: Annotated[tuple[str, ...], "machines to plan for"] = ("cpu:1", "v5e:2x4"),
    resolution: Annotated[int, "side of the pictures"] = 256,
    updates: Annotated[int, "how many are trained"] = 3,
    one: Annotated[str, "measure this method in this process: a plan for --topologies, or training without"] = "",
) -> None:
    """Prints the table."""
    if one:
        with tempfile.TemporaryDirectory() as scratch:
            write_pictures(Path(scratch) / "pictures", resolution)
            config = config_of(one, folder, Path(scratch) / "pictures", resolution, updates)
            found = planned(config, topologies[0]) if any(topologies) else trained(config, Path(scratch) / "run")
        print(json.dumps(found))
        return
    if not folder.exists():
        from benchmarks.convert_stable_diffusion import make

        make(folder, "bfloat16")
        write_tokenizer(folder / "tokenizer")
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise UserError(f"--methods: {unknown[0]!r} is none of {', '.join(METHODS)}.")
    rows = harness.Rows(out, folder=str(folder), resolution=resolution, updates=updates, topologies=list(topologies))
    lines = []
    for method in methods or METHODS:
        made = functools.partial(measure, method, folder, resolution, updates, topologies)
        row = rows.get({"method": method}, made)
        lines.append(line(method, row, topologies))
    heads = [head for name in HEADS for head in ([name.format(t) for t in topologies] if "{}" in name else [name])]
    print(harness.table(heads, lines))


if __name__ == "__main__":
    sys.exit(harness.run(main))
