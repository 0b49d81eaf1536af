"""The command line's modes, each a function of (config, flags); errors become one sentence and a status.

JAX is imported inside the modes, so that help, the list of configs and a config error answer at once.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
import pathlib
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags as absl_flags
from etils import epath
from ml_collections import ConfigDict

from jaxgen import commandline
from jaxgen.config import check, defaults
from jaxgen.entry_point import status_of
from jaxgen.errors import UserError, nearest
from jaxgen.runs.workdir import stored_config

log = logging.getLogger("jaxgen")

INTERRUPTED = "interrupted; the checkpoints on disk are whole, the same command goes on."


@dataclasses.dataclass(frozen=True)
class Flags:
    """The command line besides the config.

    Attributes:
      workdir: the run's folder. mode: train, sample, evaluate, plan or profile. num, seed, out, labels: of
        --mode=sample; num and seed of the quiz too. quiz: whether --mode=evaluate writes one.
      checkpoint: last, best or a step.
      prompts, negative_prompt, latents: of --mode=sample with a text-to-image model.
      topology, find_batch: of --mode=plan.
      command: the whole line, to be recorded. summary: the first line of the config's docstring.
    """

    workdir: str
    mode: str = "train"
    num: int = 64
    seed: int = 0
    out: str = ""
    labels: tuple[int, ...] | None = None
    quiz: bool = False
    checkpoint: str = "last"
    prompts: tuple[str, ...] = ()
    negative_prompt: str = ""
    latents: str = ""
    topology: str = ""
    find_batch: bool = False
    command: str = ""
    summary: str = ""


def main(argv: Sequence[str], description: str, folder: str) -> int:
    """Reads the flags and runs; returns the exit status. Expected errors are one sentence on stderr.

    Statuses: 0 done, or stopped by SIGTERM with everything saved; 2 bad input; 130 stopped by SIGINT.

    Args:
      description: what --help begins with. folder: where the configs lie, for --list.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    if {"--help", "-help", "-h"} & set(argv):
        print(f"{description}\nflags:\n{absl_flags.FLAGS.module_help('__main__') or absl_flags.FLAGS.get_help()}")
        return 0
    status = status_of(lambda: _status(argv, folder), interrupted=INTERRUPTED, explain=_lost)
    together = sys.modules.get("jaxgen.parallel.distributed")
    if status and together is not None:
        together.leave(status)
    return status


def _status(argv: Sequence[str], folder: str) -> int:
    given = commandline.parse(argv)
    if given.list:
        print(commandline.listing(pathlib.Path(folder)))
        return 0
    prompts = commandline.prompts(given)
    return run(given.config, Flags(
        workdir=given.workdir,
        mode=given.mode,
        num=len(prompts) if prompts and not given["num"].present else given.num,
        seed=given.seed,
        out=given.out,
        labels=_labels(given.labels),
        quiz=given.quiz,
        checkpoint=given.checkpoint,
        prompts=prompts,
        negative_prompt=given.negative_prompt,
        latents=given.latents,
        topology=given.topology,
        find_batch=given.find_batch,
        command=shlex.join(["python", *argv]),
        summary=_summary(argv),
    ))


def _lost(error: BaseException) -> str | None:
    together = sys.modules.get("jaxgen.parallel.distributed")
    return together.lost(error) if together else None


def _labels(given: Sequence[str] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        return tuple(int(label) for label in given)
    except ValueError as error:
        raise UserError(f"--labels must be numbers such as 3 or 0,1,2, not {','.join(given)}.") from error


def _summary(argv: Sequence[str]) -> str:
    path = commandline.config_file(argv)
    return commandline.summary(ast.get_docstring(ast.parse(path.read_text()))) if path else ""


def run(config: ConfigDict | None, flags: Flags) -> int:
    """Runs one mode; returns the exit status.

    Raises:
      UserError: for bad input.
    """
    modes: dict[str, Callable[[ConfigDict, Flags], int]]
    modes = {"train": train, "sample": sample, "evaluate": judge, "plan": plan, "profile": profile}
    if flags.mode not in modes:
        raise UserError(f"--mode={flags.mode} is unknown; {nearest(flags.mode, modes)}")
    if config is not None and "pretrained" in config.init_from:
        _check_pretrained(config, flags)
    elif flags.negative_prompt or flags.latents:
        raise UserError("--negative_prompt and --latents need config.init_from.pretrained.")
    elif flags.prompts and flags.mode != "sample":
        raise UserError("--prompt and --prompts need --mode=sample.")
    elif flags.mode == "profile" and not (flags.out or flags.workdir):
        raise UserError("--mode=profile needs --out=<folder for the trace>, or the --workdir of a run.")
    elif not flags.workdir and flags.mode not in ("plan", "profile"):
        raise UserError("--workdir is needed: the folder of the run, such as --workdir=runs/ddpm_digits.")
    if config is None:
        config = stored_config(flags.workdir) if flags.mode != "train" and flags.workdir else None
        if config is None:
            raise UserError("--config is needed, such as --config=configs/ddpm_digits.py; --list names them all.")
    check(config)
    if flags.mode == "sample" and (flags.num < 1 or not flags.out):
        raise UserError("--mode=sample needs --out=<folder for the images> and --num of at least 1.")
    if flags.quiz and (flags.mode != "evaluate" or flags.num < 1 or flags.labels is not None):
        raise UserError("--quiz needs --mode=evaluate and --num of at least 1; it shows every class: no --labels.")
    if not 0 <= flags.seed < 2**32:
        raise UserError(f"--seed={flags.seed}: a seed lies in [0, 2**32).")

    if flags.mode == "plan":
        if not flags.topology:
            raise UserError("--mode=plan needs --topology=<machine>, such as v5e:2x4 or cpu:8.")
        return plan(config, flags)
    if flags.topology or flags.find_batch:
        raise UserError("--topology and --find_batch belong to --mode=plan.")

    from jaxgen.host import use_compilation_cache, use_cpu_cores
    from jaxgen.parallel import distributed

    use_cpu_cores()
    use_compilation_cache()
    distributed.start(config.distributed)
    config.distributed = defaults().distributed  # how processes met is no part of the run
    return modes[flags.mode](config, flags)


def _check_pretrained(config: ConfigDict, flags: Flags) -> None:
    if flags.mode != "sample":
        raise UserError(f"--mode={flags.mode} has no use for config.init_from.pretrained; it is for --mode=sample.")
    if flags.workdir:
        raise UserError("config.init_from.pretrained is sampled from without a run: leave --workdir out.")
    if not config.init_from.pretrained:
        raise UserError("config.init_from.pretrained is empty; name the folder of a pipeline that diffusers wrote.")
    if flags.labels is not None:
        raise UserError("--labels was given, but this model draws what texts say; leave it out.")


@contextlib.contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Outside the training loop, which has its own way, all is on disk: SIGTERM ends the process with 0."""

    from jax import process_count

    if process_count() > 1:  # JAX's preemption service has the signal
        yield
        return

    def leave(number: int, frame: Any) -> None:
        log.info("stopped; the same command goes on from here")
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_leaving_on_sigterm()
def train(config: ConfigDict, flags: Flags) -> int:
    """Trains, or resumes; at the end judges and writes the report."""
    from jaxgen.evaluation.evaluate import check_held_out, evaluate, metric_functions
    from jaxgen.evaluation.record import write_best, write_scores
    from jaxgen.files import read_json
    from jaxgen.parallel.distributed import barrier, is_first
    from jaxgen.report.page import write_report
    from jaxgen.runs.logs import add_event
    from jaxgen.runs.record import record
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.workdir import open_workdir
    from jaxgen.sampling.outputs import write_panels
    from jaxgen.sampling.restore import restore
    from jaxgen.train.loop import Trainer

    make_method(config), metric_functions(config)  # a misspelt key is found before anything is written
    workdir = epath.Path(flags.workdir)
    first = is_first()
    config, changed = open_workdir(workdir, config, training=True, writes=first)
    barrier("workdir")
    if not (workdir / "config.json").exists():
        raise UserError(f"--workdir={workdir} is not the same folder for all processes; put it where all can see it.")
    check_held_out(config)

    def scores(trainer: Trainer) -> dict[str, float]:
        entries = evaluate(trainer.generator, trainer.model())
        return {name: entry["value"] for name, entry in entries.items()}

    trainer = Trainer(config, workdir, scores)
    if first:
        record(workdir, flags.command, flags.summary, config, trainer.state.params)
    for key, (old, new) in changed.items() if first else ():
        log.info("config.%s changes from %r to %r", key, old, new)
        add_event(workdir, "config changed", f"config.{key}: {old!r} -> {new!r}")
    finished = trainer.train()
    if not finished:
        if first:
            add_event(workdir, "stopped", f"by signal {trainer.stopped_by} at step {trainer.step}")
            write_report(workdir)
        log.info("stopped at %d images; the same command goes on from here", trainer.images)
        return 0 if trainer.stopped_by == signal.SIGTERM else 130
    judged = workdir / "metrics.json"
    if judged.exists() and read_json(judged).get("_meta", {}).get("step") == trainer.step:
        log.info("finished at %d images; a higher config.train.total_images goes on", trainer.images)
    else:
        write_panels(workdir / "samples", trainer.generator, trainer.model(), config.seed, samples=trainer.images)
        if config.evaluate.at_end:
            entries = evaluate(trainer.generator, trainer.model())
            if first:
                write_scores(workdir, entries, trainer.step, trainer.images)
            if config.train.keep_best and trainer.checkpoints.best_step() not in (None, trainer.step):
                best = restore(config, workdir, "best")
                entries = evaluate(trainer.generator, best.model)  # whose sampler is compiled
                if first:
                    write_best(workdir, entries, best.step, best.images)
    if first:
        log.info("report: %s", write_report(workdir))
    barrier("end")
    return 0


def sample(config: ConfigDict, flags: Flags) -> int:
    """Writes samples.png, samples.npz and the method's pictures to --out."""
    from jaxgen.parallel.distributed import is_first
    from jaxgen.sampling.outputs import write_panels, write_samples

    if "pretrained" in config.init_from:
        trained = _pretrained(config, flags)
    else:
        trained = _trained(config, flags)
        if flags.prompts:
            trained.generator.use_prompts(flags.prompts)
    drawn = trained.generator.images(trained.model, flags.seed, flags.num, flags.labels)
    out = epath.Path(flags.out)
    if is_first():
        write_samples(out, drawn, prompts=flags.prompts)
    write_panels(out, trained.generator, trained.model, flags.seed, flags.labels)
    log.info("%d images at step %d: %s", len(drawn.images), trained.step, out / "samples.png")
    return 0


def judge(config: ConfigDict, flags: Flags) -> int:
    """Judges a checkpoint: one JSON line on stdout; of the newest and of the best also metrics.json or
    metrics_best.json, and the report, in the workdir."""
    from jaxgen.evaluation.evaluate import evaluate, metric_functions
    from jaxgen.evaluation.quiz import make_quiz
    from jaxgen.evaluation.record import write_best, write_scores
    from jaxgen.files import strict_json
    from jaxgen.parallel.distributed import is_first
    from jaxgen.report.page import write_report

    metric_functions(config)
    trained = _trained(config, flags)
    if flags.quiz:
        log.info("quiz: %s", make_quiz(flags.workdir, trained, flags.seed, flags.num))
    entries = evaluate(trained.generator, trained.model)
    if not is_first():
        return 0
    write = {"last": write_scores, "best": write_best}.get(flags.checkpoint)
    if write:
        write(epath.Path(flags.workdir), entries, trained.step, trained.images)
        write_report(flags.workdir)
    print(strict_json(entries))
    return 0


def plan(config: ConfigDict, flags: Flags) -> int:
    """Prints what the config needs of a machine that need not be here; also plan.json in --out or the workdir."""
    from jaxgen.files import write_json
    from jaxgen.host import use_compilation_cache
    from jaxgen.planning.plan import find_batch
    from jaxgen.planning.plan import plan as make_plan
    from jaxgen.planning.topology import runs_here, use_topology
    from jaxgen.report.page import write_report
    from jaxgen.report.plan import plan_text

    use_topology(flags.topology)
    if runs_here(flags.topology):
        use_compilation_cache()
    batches: dict[int, bool] = {}
    if flags.find_batch:
        largest, batches = find_batch(config, flags.topology)
        config.train.batch_size = largest or config.train.batch_size
    made = dataclasses.replace(make_plan(config, flags.topology), batches=batches)
    print(plan_text(made.to_dict()))
    folder = flags.out or flags.workdir
    if folder:
        write_json(epath.Path(folder) / "plan.json", made.to_dict())
        log.info("report: %s", write_report(folder))
    return 0


def profile(config: ConfigDict, flags: Flags) -> int:
    """Prints what update and sampler spend their time on here; trace and profile.json in --out or the workdir."""
    from jax import process_count

    from jaxgen.files import write_json
    from jaxgen.planning.profile import profile as run_and_trace
    from jaxgen.report.page import write_report
    from jaxgen.report.profile import profile_text

    if process_count() > 1:
        raise UserError("--mode=profile is for one process: leave config.distributed as it is by default.")
    folder = epath.Path(flags.out or flags.workdir)
    made = run_and_trace(config, folder / "trace").to_dict()
    print(profile_text(made))
    write_json(folder / "profile.json", made)
    log.info("trace: %s; report: %s", folder / "trace", write_report(folder))
    return 0


def _trained(config: ConfigDict, flags: Flags) -> Any:
    from jaxgen.runs.workdir import open_workdir
    from jaxgen.sampling.restore import restore

    config, changed = open_workdir(flags.workdir, config, training=False)
    for key, (old, new) in changed.items():
        log.info("config.%s is %r here and was %r in training", key, new, old)
    trained = restore(config, flags.workdir, flags.checkpoint)
    _tell_sampler(config, trained)
    return trained


def _pretrained(config: ConfigDict, flags: Flags) -> Any:
    from jaxgen.sampling.restore import pretrained

    trained = pretrained(config, flags.prompts, flags.negative_prompt, flags.latents, flags.num)
    _tell_sampler(config, trained)
    return trained


def _tell_sampler(config: ConfigDict, trained: Any) -> None:
    sampler = getattr(trained.generator.method, "sampler", None)
    if sampler is not None:
        most = "at most " if config.sampler.name == "ode" else ""
        log.info("sampler %s: %s%d network evaluations an image", config.sampler.name, most, sampler.evaluations)
