"""Holds the training loop: it is the same for every method, from a fresh start or from where a run stopped."""

from __future__ import annotations

import logging
import signal
import time
import types
from collections.abc import Callable
from concurrent.futures import Future

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxgen.arrays import Metrics, Params
from jaxgen.config import check
from jaxgen.data.loader import HostBatch
from jaxgen.errors import UserError
from jaxgen.host import stop_signals
from jaxgen.methods.base import Model, State, Turn, check_examples, check_limits, learned_groups
from jaxgen.parallel.distributed import is_first, told_to_stop
from jaxgen.parallel.mesh import await_cpu, make_mesh, place
from jaxgen.parallel.sharding import check_state_fits
from jaxgen.report.images import save_png
from jaxgen.runs import state as states
from jaxgen.runs.checkpoint import Checkpoints, Meta
from jaxgen.runs.history import MetricsLog, NoLog, check_history
from jaxgen.runs.loaded_groups import load_groups
from jaxgen.runs.optim import ends_before
from jaxgen.runs.progress import Progress
from jaxgen.runs.record import add_event
from jaxgen.runs.setup import make_loader, make_method, sampled_sources, tell_sources, training_sources
from jaxgen.runs.state_builder import StateBuilder
from jaxgen.runs.trackers.opened import Trackers, check_trackers
from jaxgen.sampling.finite import NotFinite
from jaxgen.sampling.generator import Generator
from jaxgen.train.ahead import await_unless, compile_ahead
from jaxgen.train.class_images import draw_missing
from jaxgen.train.step_metrics import StepMetrics
from jaxgen.train.update import draws, programs, update_of

log = logging.getLogger("jaxgen")


class Trainer:
    """Trains one run: `Trainer(config, workdir).train()` continues from the newest checkpoint in the workdir.

    Args:
      config: a checked config (`jaxgen.config.check`).
      workdir: the run's folder.
      evaluate: a function that is called every `train.evaluate_every_images`; it returns numbers that
        `train.best_metric` may name.
      may_write: a function that is called before each step and checkpoint, and raises an error if the workdir is no
        longer this process's. The command line takes the workdir's lock (`jaxgen.runs.workdir.alone_in`); a program
        that may run twice at once does well to do so too.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: epath.PathLike,
        evaluate: Callable[[Trainer], dict[str, float]] | None = None,
        may_write: Callable[[], None] = lambda: None,
    ):
        check(config)
        check_trackers(config)
        self.config, self.workdir = config, epath.Path(workdir)
        self.evaluate, self._may_write = evaluate, may_write
        train = config.train
        self.method = make_method(config)
        sizes = config.mesh
        self.mesh = make_mesh(sizes.data, train.batch_size // train.accumulate, sizes.fsdp, sizes.tensor)
        self._sampled = sampled_sources(config, workdir)
        self.sources = training_sources(config, self._sampled)
        tell_sources(self.sources)
        check_examples(self.method, len(self.sources[""]), self.sources[""].name)
        self.loader = make_loader(config, self.sources)
        start = self.loader.get_state()
        check_limits(self.method, self.sources[""].arrays or {})  # all examples, where they are in memory
        example = place(self._next_batch(), self.mesh)
        self.loader.set_state(start)
        self.checkpoints = Checkpoints(workdir, train.keep_last, train.keep_best, train.best_metric, train.best_mode)
        loaded = load_groups(config, self.mesh, self.checkpoints.origins())
        self.origins = loaded.origins
        self.builder = StateBuilder(config, self.method, self.mesh, loaded, example)
        self.stage = self.builder.first_stage
        self.step = self.images = 0
        self.seconds = 0.0
        self._updates: dict[tuple[int, tuple[str, ...]], jax.stages.Wrapped] = {}
        self._metrics = StepMetrics()
        self._scores: dict[str, float] = {}
        self._stop: int | None = None
        self.generator = Generator(self.method, config, sources={config.data.split: self.sources[""]})
        self._compiling: Future | None = None
        self._restore()
        self.builder.release(self.state)

    def _restore(self) -> None:
        self._resumed = False
        found = self.checkpoints.restore(lambda meta: self._expect(meta.stage, meta.step, meta.images))
        if found is None:
            self._expect(self.stage, 0, 0)
            self.state = self.builder.begin()
            return
        self.state, meta = found
        self.stage, self.step, self.images, self.seconds = meta.stage, meta.step, meta.images, meta.seconds
        self.loader.set_state(meta.data)
        self._metrics = StepMetrics(meta.pending)
        check_history(self.workdir)
        log.info("resuming at step %d, %d images", self.step, self.images)
        self._resumed = True

    def _expect(self, stage: int, step: int, images: int) -> State:
        """Returns the shapes of a state that is about to be made or read.

        It also traces the sampler, so that its errors are found before training, and starts to compile the next step's
        programs on another thread.
        """
        self.stage = stage
        state = self.builder.abstract(stage)
        check_state_fits(state)
        frozen = self.builder.frozen(state)
        self.generator.check(states.model_of(state, frozen, stage))
        goes_on = images < self.config.train.total_images and states.stage_at(self.method, images) == stage
        # several processes compile together, one program at a time
        if goes_on and self._compiling is None and jax.process_count() == 1:
            turns = self.method.turns(stage)
            lowered = []
            for program in programs(turns, step):
                batches = (self.builder.inputs.example,) * draws(program)
                lowered.append(self.update(program, state).trace(state, frozen, batches).lower())
            self._compiling = compile_ahead(lowered)
        return state

    @property
    def frozen(self) -> Params:
        return self.builder.frozen(self.state)

    def update(self, turns: tuple[Turn, ...], state: State | None = None) -> jax.stages.Wrapped:
        """Returns the jitted update for the turns of one program of the current stage; it is made once.

        Args:
          turns: the program's turns, as `jaxgen.train.update.programs` gives them.
          state: a state, or its shapes, with the shardings of the run's states; by default the current state.
        """
        name = (self.stage, tuple(turn.name for turn in turns))
        if name not in self._updates:
            state = self.state if state is None else state
            self._updates[name] = update_of(self.config, self.builder, self.stage, turns, state)
        return self._updates[name]

    def take_step(self) -> Metrics:
        """Changes the stage if the next one is due, draws batches and updates the state; returns the metrics.

        Before the first batch the images that the config asks of its pretrained model are drawn.
        """
        if self._sampled:
            draw_missing(self.config, self._sampled.values())
            self._sampled = {}
        stage = states.stage_at(self.method, self.images)
        if stage != self.stage:
            log.info("stage %d begins at %d images", stage, self.images)
            self.state = await_cpu(self.mesh, self.builder.cross(self.state, stage))
            self.stage = stage
        turns = self.method.turns(self.stage)
        count = draws(turns)
        batches = tuple(place(self._next_batch(), self.mesh) for _ in range(count))
        if self._compiling is not None:
            self._compiling.result()
            self._compiling = None
        metrics: Metrics = {}
        for program in programs(turns, self.step):
            self.state, found = self.update(program)(self.state, self.frozen, batches[: draws(program)])
            metrics |= await_cpu(self.mesh, found)
        self.step += 1
        self.images += self.config.train.batch_size * count
        return metrics

    def _next_batch(self) -> HostBatch:
        batch = next(self.loader)
        check_limits(self.method, batch)
        return batch

    def save(self) -> None:
        """Writes a checkpoint in the background."""
        self._may_write()
        meta = Meta(
            step=self.step,
            images=self.images,
            stage=self.stage,
            seed=self.config.seed,
            seconds=self.seconds,
            data=self.loader.get_state(),
            example={k: [list(v.shape), str(v.dtype)] for k, v in self.builder.inputs.example.items()},
            origins=self.origins,
            pending=self._metrics.sums,
        )
        self.checkpoints.save(self.state, meta, self._scores)
        self._scores = {}  # numbers belong to the first checkpoint that is saved after them, and to no later one

    def _event(self, event: str, detail: str) -> None:
        if is_first():
            add_event(self.workdir, event, detail)

    def train(self) -> bool:
        """Runs until `config.train.total_images`, or until SIGTERM, SIGHUP or SIGINT; saves at the end.

        A stop takes effect after the current step; during the compilation of the first update it does so at once. When
        one of several processes gets SIGTERM, all stop after the same step. SIGINT ends that process at once, and
        with it all others, without a checkpoint.

        Returns:
          Whether `total_images` are reached.

        Raises:
          UserError: after `max_nonfinite_updates` non-finite updates in a row; the last good state is saved.
        """
        writer: MetricsLog | NoLog = NoLog()
        if is_first():
            writer = MetricsLog(self.workdir, Trackers(self.config, self.workdir), resume_step=self.step)
        if self._resumed:
            self._event("resumed", f"at step {self.step}, {self.images} images")
        total = self.config.train.total_images
        for early in (ends_before(self.builder.optimizers, total), states.unreached(self.method, total)):
            if early:
                log.warning("%s", early)
        bar = Progress(self.config.train.total_images, self.images, None if is_first() else False)
        # several processes must agree on the step to stop after: SIGTERM goes to JAX's preemption service
        watched = (*stop_signals(), signal.SIGINT) if jax.process_count() == 1 else ()
        handlers = {s: signal.signal(s, self._on_signal) for s in watched}
        try:
            self._train(writer, bar)
            self.checkpoints.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            bar.close()
            writer.close()
        return self.images >= self.config.train.total_images

    def _train(self, writer: MetricsLog | NoLog, bar: Progress) -> None:
        train = self.config.train
        began, clock = self.images, time.monotonic() - self.seconds
        mark = (self.images, self.seconds)
        while self.images < train.total_images and self._stop is None:
            if told_to_stop(self.step):
                self._stop = signal.SIGTERM
                break
            if self._compiling is not None and not await_unless(self._compiling, lambda: self._stop is not None):
                break
            self._may_write()
            step, before = self.step, self.images
            self._metrics.add(step, self.take_step())
            self.seconds = time.monotonic() - clock
            logged = self._crossed(train.log_every_images, before) or self.images >= train.total_images
            if before == began and not logged:
                mark = (self.images, self.seconds)  # the first step compiles, which is no part of the rate
            # numbers of all but the newest steps are ready: reading them does not hold up the device
            if self._metrics.waiting >= train.max_nonfinite_updates + 2:
                self._read(leave=2)
            if logged:
                self._read()
                rate = (self.images - mark[0]) / (self.seconds - mark[1])
                rates = self._learning_rates(before)
                self._log(writer, bar, {**self._metrics.take_means(), **rates, "images_per_second": rate})
                mark = (self.images, self.seconds)
            bar.update(self.images)
            if self._crossed(train.sample_every_images, before):
                self._samples(writer)
            if self._crossed(train.evaluate_every_images, before) and self.evaluate is not None:
                found = self.evaluate(self)
                named = {f"evaluate/{name}": value for name, value in found.items()}
                writer.write(self.step, self.images, self.seconds, named)
                self._scores = {**self._scores, **found}
            if self._crossed(train.checkpoint_every_images, before):
                writer.flush()  # the log is never behind a checkpoint
                self._read()
                self.save()
        self._read()
        if self.images > began or not self.checkpoints.steps():
            self.save()

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        if self._stop is not None:  # asked twice: do not wait for the step
            raise KeyboardInterrupt
        self._stop = number

    @property
    def stopped_by(self) -> int | None:
        """Returns the signal that ended `train` early."""
        return self._stop

    def _crossed(self, every: int, before: int) -> bool:
        return bool(every) and self.images // every != before // every

    def _read(self, leave: int = 0) -> None:
        """Reads the numbers of all steps but the newest `leave`, and reports updates that were undone."""
        for step, turn, group in self._metrics.read(leave):
            text = f"step {step}, turn {turn!r}: the update of group {group!r} was not finite and was undone"
            log.warning(text)
            self._event("non-finite", text)
        self._stop_if_nonfinite()

    def _stop_if_nonfinite(self) -> None:
        """Saves the state and raises a UserError where a turn's last `max_nonfinite_updates` updates were undone."""
        limit = self.config.train.max_nonfinite_updates
        for turn, count in jax.device_get(self.state.nonfinite_count).items():
            if count < limit:
                continue
            self.save()
            self.checkpoints.wait()
            groups = next(t.groups for t in self.method.turns(self.stage) if t.name == turn)
            raise UserError(
                f"Turn {turn!r} was not finite for {int(count)} updates in a row, up to step {self.step - 1} "
                f"(groups: {', '.join(groups)}). The last good state is saved in {self.workdir}; "
                "lower the learning rate, or look for bad values in the data."
            )

    def _log(self, writer: MetricsLog | NoLog, bar: Progress, scalars: dict[str, float]) -> None:
        writer.write(self.step, self.images, self.seconds, scalars)
        bar.update(self.images, {n: v for n, v in scalars.items() if n.endswith(("/loss", "/learning_rate"))})
        self._scores = {**self._scores, **scalars}

    def _learning_rates(self, images: int) -> dict[str, float]:
        """Returns `{"<group>/learning_rate": rate}` for the update that began at `images`, of the stage's groups."""
        groups = learned_groups(self.method, self.stage)
        return {f"{group}/learning_rate": self.builder.optimizers[group].rate_at(images) for group in groups}

    @property
    def logged(self) -> list[str]:
        """Returns the names in the log; of those of turns and groups only the beginning, up to the slash."""
        turns = [turn.name for _, stage in self.method.stages for turn in self.method.turns(stage)]
        names = dict.fromkeys((*turns, *learned_groups(self.method)))
        return [*(f"{name}/" for name in names), "images_per_second"]

    def _samples(self, writer: MetricsLog | NoLog) -> None:
        if not self.method.has_sampler or not self.generator.output.pictured:
            return
        try:
            picture = self.generator.draw(self.model(), self.config.seed, 64).picture()
        except NotFinite as error:  # the run goes on: later weights may be better
            log.warning("no picture at %d images: %s", self.images, error)
            self._event("not finite", str(error))
            return
        if picture is not None and is_first():
            save_png(self.workdir / "samples" / f"step_{self.images:010d}.png", picture)
        if picture is not None:
            writer.image("samples", self.images, picture)

    def model(self, ema: bool = True) -> Model:
        """Returns the current model for sampling and evaluation; `ema=False` takes the parameters, not the EMA."""
        return states.model_of(self.state, self.frozen, self.stage, ema)
