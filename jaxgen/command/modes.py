"""Each mode is a function of (config, flags) that returns an exit status.

Each mode imports the rooms that it needs inside its function, so that errors appear before JAX has started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen.command.compare import compare
from jaxgen.command.demo import serve_demo
from jaxgen.command.flags import Flags
from jaxgen.command.publish import publish_run
from jaxgen.errors import UserError, os_refusal

if TYPE_CHECKING:
    from jaxgen.files import FolderLock
    from jaxgen.sampling.inputs import Inputs
    from jaxgen.sampling.restore import TrainedModel
    from jaxgen.train.loop import Trainer

log = logging.getLogger("jaxgen")


@contextlib.contextmanager
def _leaving_on_sigterm(said: str) -> Iterator[None]:
    """Logs a sentence and ends the process with status 0 at SIGTERM or SIGHUP.

    It is for what runs outside the training loop, where nothing is left to save; the loop handles both signals itself.
    """
    from jax import process_count

    from jaxgen.host import stop_signals

    if process_count() > 1:  # JAX's preemption service handles the signal
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        log.info(said)
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@_leaving_on_sigterm("stopped; the same command resumes the run")
def train(config: ConfigDict, flags: Flags) -> int:
    """Trains or resumes a run; at the end evaluates it and writes the report."""
    from jaxgen.runs.hub.pins import pin
    from jaxgen.runs.workdir import alone_in

    pin(config, flags.workdir)
    _check_names(config)
    with alone_in(flags.workdir) as lock:
        return _train(config, flags, epath.Path(flags.workdir), lock)


def _train(config: ConfigDict, flags: Flags, workdir: epath.Path, lock: FolderLock) -> int:
    from jaxgen.evaluation.evaluate import check_before_training, check_best_metric, evaluate
    from jaxgen.evaluation.record import scored_step
    from jaxgen.parallel.distributed import barrier, is_first
    from jaxgen.report.page import write_report
    from jaxgen.runs.record import add_event, record
    from jaxgen.runs.setup import make_method
    from jaxgen.runs.workdir import keep_history, open_workdir
    from jaxgen.sampling.finite import NotFinite
    from jaxgen.train.loop import Trainer

    first = is_first()
    config, changed = open_workdir(workdir, config, training=True, writes=False)
    _check_workdir(workdir)
    check_before_training(config, make_method(config))
    scored = scored_step(workdir)  # now, so that a damaged file is found before anything is written

    def scores(trainer: Trainer) -> dict[str, float]:
        entries = evaluate(trainer.generator, trainer.model(), images=trainer.images)
        return {name: entry["value"] for name, entry in entries.items()}

    # finds all that is wrong before the run's first file is written
    trainer = Trainer(config, workdir, scores, may_write=lock.check)
    check_best_metric(config, trainer.generator, trainer.model(), trainer.logged)
    if first:
        if trainer.step == 0:
            keep_history(workdir)
        record(workdir, flags.command, flags.summary, config, trainer.state.params)
    for key, (old, new) in changed.items() if first else ():
        log.info("config.%s changes from %r to %r", key, old, new)
        add_event(workdir, "config changed", f"config.{key}: {old!r} -> {new!r}")
    finished = trainer.train()
    if not finished:
        if first:
            add_event(workdir, "stopped", f"by signal {trainer.stopped_by} at step {trainer.step}")
            write_report(workdir)
        log.info("stopped at %d images; the same command resumes the run", trainer.images)
        return 130 if trainer.stopped_by == signal.SIGINT else 0
    if scored == trainer.step:
        log.info("finished at %d images; a higher config.train.total_images extends the run", trainer.images)
    else:
        try:
            _draw_and_score(trainer, config, workdir)
        except NotFinite as error:  # the report shows what the run was until then
            if first:
                add_event(workdir, "not finite", str(error))
                log.info("report: %s", write_report(workdir))
            raise
    if first:
        log.info("report: %s", write_report(workdir))
    barrier("end")
    return 0


def _check_workdir(workdir: epath.Path) -> None:
    """Checks that the first process can write into the workdir, and that all processes see the same folder.

    Raises:
      UserError: the folder cannot be written, or a process sees another one.
    """
    from jax import process_count

    from jaxgen.files import check_writable
    from jaxgen.parallel.distributed import all_agree, barrier, is_first

    if is_first():
        check_writable(workdir, "--workdir")
    if process_count() == 1:
        return
    mark = workdir / ".seen_by_all"
    if is_first():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    barrier("workdir")
    same = all_agree(mark.exists())
    if is_first():
        mark.unlink(missing_ok=True)
    if not same:
        raise UserError(f"--workdir={workdir} is not the same folder for all processes; give one that all see.")


def _draw_and_score(trainer: Trainer, config: ConfigDict, workdir: epath.Path) -> None:
    """Writes the pictures of a finished run, and the scores of its newest and of its best checkpoint."""
    from jaxgen.evaluation.evaluate import evaluate
    from jaxgen.evaluation.record import write_best, write_scores
    from jaxgen.parallel.distributed import is_first
    from jaxgen.runs.trackers.opened import show_scores
    from jaxgen.sampling.outputs import write_panels
    from jaxgen.sampling.restore import restore

    write_panels(workdir / "samples", trainer.generator, trainer.model(), config.seed, samples=trainer.images)
    if not config.evaluate.at_end:
        return
    entries = evaluate(trainer.generator, trainer.model())
    if is_first():
        write_scores(workdir, entries, trainer.step, trainer.images)
        scores = {name: entry["value"] for name, entry in entries.items()}
        show_scores(config, workdir, trainer.step, trainer.images, scores)
    if config.train.keep_best and trainer.checkpoints.best_step() not in (None, trainer.step):
        best = restore(config, workdir, "best")
        entries = evaluate(trainer.generator, best.model)  # the trainer's generator is compiled already
        if is_first():
            write_best(workdir, entries, best.step, best.images)


def sample(config: ConfigDict, flags: Flags) -> int:
    """Samples from a model and writes samples.npz, a picture of it and the method's panels to --out."""
    from jaxgen.command.settings import check_model, settings_of, texts
    from jaxgen.editing.draws import check_draws
    from jaxgen.editing.edited import given_pictures
    from jaxgen.editing.sized import check_memory
    from jaxgen.files import check_writable
    from jaxgen.files.carried import carrying
    from jaxgen.parallel.distributed import is_first
    from jaxgen.sampling import outputs
    from jaxgen.sampling.degraded import degraded_pictures

    if is_first():
        check_writable(flags.out, "--out")
    given = flags
    trained, flags = _asked_model(config, flags)
    settings = settings_of(config, given, trained)
    for sentence in check_model(given, settings) if given.settings else ():
        log.warning(sentence)
    out, inputs = epath.Path(flags.out), None
    if flags.degrade:
        trained, inputs = degraded_pictures(trained, flags.files, flags.num, flags.seed)
    elif flags.files:
        trained, inputs = given_pictures(trained, flags.files, flags.strength, flags.num, flags.legend)
    method = trained.generator.method
    check_draws(method, flags.draws, flags.num, len(inputs.files) if inputs else 0, len(flags.prompt))
    if inputs is not None:
        outputs.check_names(out, inputs, flags.num * flags.draws, trained.generator.output)
    if flags.size:
        check_memory(trained.generator, trained.model, flags.size)
    with carrying(texts(settings)):
        return _draw_and_write(trained, flags, out, inputs)


def _asked_model(config: ConfigDict, flags: Flags) -> tuple[TrainedModel, Flags]:
    """Returns the model that is to draw, with the texts and the noise of the flags, and the flags that are left."""
    from jaxgen.editing.sized import at_size
    from jaxgen.editing.starts import with_noise

    if "pretrained" in config.init_from and config.method.name == "stable_diffusion":
        if flags.size:
            raise UserError("--size is for a run; a folder of diffusers draws at config.data.resolution: set that.")
        if flags.rerank:
            raise UserError("--rerank is for a run whose texts a CLIP of the same words reads: leave it out.")
        return _pretrained(config, flags), flags
    trained = _trained(config, flags)
    if flags.size:
        trained = at_size(trained, flags.size, flags.num)
    if flags.prompt:
        trained.generator.use_prompts(flags.prompt)
    if flags.negative_prompt:
        trained.generator.use_negative_prompt(flags.negative_prompt)
    if flags.noise:
        trained = with_noise(trained, flags.noise, flags.num)
    return _reranked(trained, flags) if flags.rerank else (trained, flags)


def _draw_and_write(trained: TrainedModel, flags: Flags, out: epath.Path, inputs: Inputs | None) -> int:
    from jaxgen.editing.draws import draw_several, write_draws
    from jaxgen.parallel.distributed import is_first
    from jaxgen.sampling import outputs

    method = trained.generator.method
    drawn = draw_several(trained, flags.seed, flags.num, flags.draws, flags.labels)
    first = outputs.write_samples(out, drawn, prompts=flags.prompt) if is_first() else ""
    if is_first():
        first = outputs.write_captions(out, trained.generator, drawn, inputs) or first
    if inputs is None:
        outputs.write_panels(out, trained.generator, trained.model, flags.seed, flags.labels)
        outputs.write_meshes(out, trained.generator, trained.model, flags.seed, flags.num, flags.labels)
    elif is_first() and trained.generator.output.named:
        outputs.write_beside(out, inputs, drawn)
    if flags.draws > 1 and is_first() and method.samples_images:
        write_draws(out, drawn, method, flags.draws)
    log.info("%d %s at step %d: %s", len(drawn.main), drawn.output.plural, trained.step, out / first)
    return 0


def evaluate(config: ConfigDict, flags: Flags) -> int:
    """Evaluates a checkpoint and prints its scores as one JSON line on stdout.

    For the newest and for the best checkpoint it also writes metrics.json or metrics_best.json, and the report, in the
    workdir, which a chain of runs may do without. If that cannot be written, the scores are printed all the same, and
    the status is 2.
    """
    from jaxgen.evaluation.evaluate import evaluate as scored
    from jaxgen.evaluation.quiz import make_quiz
    from jaxgen.evaluation.record import write_best, write_scores
    from jaxgen.files import strict_json
    from jaxgen.parallel.distributed import is_first
    from jaxgen.report.page import write_report
    from jaxgen.runs.chains.stages import is_chain

    _check_names(config)
    if is_chain(config):
        _check_chain(config, flags)
    trained = _trained(config, flags)
    if flags.draws > 1 and not flags.rerank:
        raise UserError("--draws has a use in --mode=evaluate beside --rerank=<a run of CLIP> alone; leave it out.")
    if flags.rerank:
        trained, flags = _reranked(trained, flags)
    if flags.quiz:
        log.info("quiz: %s", make_quiz(flags.workdir, trained, flags.seed, flags.num))
    entries = scored(trained.generator, trained.model)
    if not is_first():
        return 0
    print(strict_json(entries), flush=True)  # first, since the workdir may not be writable
    write = {"last": write_scores, "best": write_best}.get(flags.checkpoint)
    if write and flags.workdir and not flags.rerank:
        try:
            write(epath.Path(flags.workdir), entries, trained.step, trained.images)
            write_report(flags.workdir)
        except OSError as error:
            raise UserError(f"the scores above could not be stored in {flags.workdir}: {os_refusal(error)}") from error
    return 0


def plan(config: ConfigDict, flags: Flags) -> int:
    """Prints the memory and time that a config needs on a machine, which need not be present.

    The plan is also written as plan.json to --out or the workdir.
    """
    from jaxgen.files import check_writable, write_json
    from jaxgen.host import use_compilation_cache
    from jaxgen.planning.plan import find_batch
    from jaxgen.planning.plan import plan as make_plan
    from jaxgen.planning.topology import runs_here, use_topology
    from jaxgen.report.page import write_report
    from jaxgen.report.plan import plan_text

    folder = flags.out or flags.workdir
    if folder:
        check_writable(folder, "--out" if flags.out else "--workdir")
    use_topology(flags.topology)
    if runs_here(flags.topology):
        use_compilation_cache()
    batches: dict[int, bool] = {}
    if flags.find_batch:
        largest, batches = find_batch(config, flags.topology)
        config.train.batch_size = largest or config.train.batch_size
    made = dataclasses.replace(make_plan(config, flags.topology), batches=batches)
    print(plan_text(made.to_dict()))
    if folder:
        write_json(epath.Path(folder) / "plan.json", made.to_dict())
        log.info("report: %s", write_report(folder))
    return 0


def profile(config: ConfigDict, flags: Flags) -> int:
    """Runs the update and the sampler on this machine and prints what they spend their time on.

    The trace and profile.json are written to --out or the workdir.
    """
    from jax import process_count

    from jaxgen.files import check_writable, write_json
    from jaxgen.planning.profile import profile as run_and_trace
    from jaxgen.report.page import write_report
    from jaxgen.report.profile import profile_text

    if process_count() > 1:
        raise UserError("--mode=profile is for one process: leave config.distributed as it is by default.")
    folder = epath.Path(flags.out or flags.workdir)
    check_writable(folder, "--out" if flags.out else "--workdir")
    made = run_and_trace(config, folder / "trace").to_dict()
    print(profile_text(made))
    write_json(folder / "profile.json", made)
    log.info("trace: %s; report: %s", folder / "trace", write_report(folder))
    return 0


@_leaving_on_sigterm("the demo is stopped")
def demo(config: ConfigDict, flags: Flags) -> int:
    """Serves a page in which a model draws, until it is stopped."""
    from jaxgen.sampling.prompts import TextRequest
    from jaxgen.sampling.restore import pretrained

    of_folder = "pretrained" in config.init_from and config.method.name == "stable_diffusion"
    trained = pretrained(config, TextRequest(("",))) if of_folder else _trained(config, flags)
    return serve_demo(trained.generator.config, flags, trained)


def publish(config: ConfigDict, flags: Flags) -> int:
    """Writes a folder that others sample from, and sends it to the hub."""
    return publish_run(flags, _trained(config, flags))


MODES: dict[str, Callable[[Any, Flags], int]] = {
    mode.__name__: mode for mode in (train, sample, evaluate, plan, profile, demo, publish, compare)
}


def _check_names(config: ConfigDict) -> None:
    """Builds everything that the config names once, so that a mistake is reported before anything is written.

    Raises:
      UserError: a name or key is misspelt.
    """
    from jaxgen.evaluation.evaluate import metrics_of
    from jaxgen.runs.setup import make_method

    metrics_of(config, make_method(config))


def _check_chain(config: ConfigDict, flags: Flags) -> None:
    """Checks what an evaluation of a chain needs, before its weights are read.

    Raises:
      UserError: a metric cannot be computed, or the folder of the numbers cannot be written.
    """
    from jaxgen.evaluation.evaluate import check_before_training
    from jaxgen.files import check_writable
    from jaxgen.runs.setup import make_method

    if flags.workdir:
        check_writable(flags.workdir, "--workdir")
    check_before_training(config, make_method(config))


def _trained(config: ConfigDict, flags: Flags) -> TrainedModel:
    from jaxgen.runs.chains.stages import is_chain
    from jaxgen.runs.hub.pins import pin
    from jaxgen.runs.workdir import open_workdir
    from jaxgen.sampling.restore import restore

    if is_chain(config):
        from jaxgen.sampling.chains import open_chain

        return open_chain(config, flags.checkpoint)
    pin(config, flags.workdir)
    config, changed = open_workdir(flags.workdir, config, training=False)
    for key, (old, new) in changed.items():
        log.info("config.%s is %r here and was %r in training", key, new, old)
    trained = restore(config, flags.workdir, flags.checkpoint, flags.adapters)
    _tell_sampler(config, trained)
    return trained


def _reranked(trained: TrainedModel, flags: Flags) -> tuple[TrainedModel, Flags]:
    """Returns a model that keeps the best of the flags' draws, and the flags without these draws."""
    from jaxgen.sampling.rerank import reranked

    return reranked(trained, flags.rerank, flags.draws, flags.trust), dataclasses.replace(flags, draws=1)


def _pretrained(config: ConfigDict, flags: Flags) -> TrainedModel:
    from jaxgen.sampling.prompts import TextRequest
    from jaxgen.sampling.restore import pretrained

    request = TextRequest(flags.prompt, flags.negative_prompt, flags.noise, flags.num)
    trained = pretrained(config, request, flags.adapters)
    _tell_sampler(config, trained)
    return trained


def _tell_sampler(config: ConfigDict, trained: TrainedModel) -> None:
    """Logs the sampler and the number of network evaluations for an image, if the sampler has such a number."""
    sampler = getattr(trained.generator.method, "sampler", None)
    evaluations = getattr(sampler, "evaluations", None)
    if evaluations is not None:
        from jaxgen.registry import config_name

        name = config.sampler.get("name") or config_name(type(sampler))
        most = "at most " if name == "ode" else ""
        log.info("sampler %s: %s%d network evaluations an image", name, most, evaluations)
