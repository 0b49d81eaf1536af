"""Compares runs: reads their folders, draws samples of each at equal seeds, and writes one page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from jaxgen.command.flags import Flags
from jaxgen.errors import UserError
from jaxgen.files import check_writable, user_path

if TYPE_CHECKING:
    from jaxgen.report.comparison.page import Drawn
    from jaxgen.report.comparison.runs import Run

log = logging.getLogger("jaxgen")
NUM = 16  # how many images of each run are drawn unless --num says it


def folders(texts: Sequence[str]) -> list[epath.Path]:
    """Returns the folders that `--workdirs` names, with commas between them or in several flags.

    Raises:
      UserError: one is no folder.
    """
    names = [name for text in texts for name in text.split(",")]
    if "" in names and len(names) > 1:
        raise UserError("--workdirs has nothing before or behind one of its commas; leave that comma out.")
    found = [user_path(name, "--workdirs") for name in names]
    for path in found:
        if not path.is_dir():
            raise UserError(f"--workdirs names {path}, which is no folder: give the workdirs of runs.")
    return found


def compare(config: object, flags: Flags) -> int:
    """Writes comparison.html to --out. A run of which nothing can be drawn is in the page without samples.

    Args:
      config: None, since each run has its own.
      flags: the flags.
    """
    from jaxgen.host import use_compilation_cache, use_cpu_cores
    from jaxgen.report.comparison.page import write_comparison
    from jaxgen.report.comparison.runs import read_runs
    from jaxgen.sampling.restore import check_checkpoint

    check_checkpoint(flags.checkpoint)
    runs = read_runs(folders(flags.workdirs))
    check_writable(flags.out, "--out")
    use_cpu_cores()
    use_compilation_cache()
    drawn = [one for run in runs for one in _drawn(run, flags)]
    asked = (
        f"{flags.num} images of each run by seed {flags.seed}: a cell shows image i of each run, which has the same "
        "random numbers and, where the data are the same, the same conditions."
    )
    log.info("comparison: %s", write_comparison(flags.out, runs, _merged(drawn), asked))
    return 0


def _drawn(run: Run, flags: Flags) -> list[Drawn]:
    """Returns what a run was given, where that can be seen, and what it draws; or why it draws nothing."""
    from jaxgen.editing.draws import seen
    from jaxgen.report.comparison.page import Drawn
    from jaxgen.report.images import grid
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    try:
        config = stored_config(run.workdir, flags.trust)
        if config is None:
            raise UserError("it has no config.json")
        trained = restore(config, run.workdir, flags.checkpoint)
        method = trained.generator.method
        if not method.has_sampler or not method.samples_images:
            return [Drawn(run.name, None, f"The method {type(method).__name__} draws no images.")]
        samples = trained.generator.draw(trained.model, flags.seed, flags.num, asked=True)
    except UserError as error:
        log.warning("%s: no samples, since %s", run.name, error)
        return [Drawn(run.name, None, f"No samples: {error}")]
    pictures = samples.pictures
    given = [Drawn(f"{what} ({run.name})", grid(cells)) for what, cells in seen(samples, method).items()]
    return [*given, Drawn(run.name, grid(pictures), f"at step {trained.step:,}, {trained.images:,} images seen")]


def _merged(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Returns pictures without those that an earlier run has to the bit, such as the same conditions."""
    found: dict[bytes, Drawn] = {}
    for number, one in enumerate(drawn):
        key = str(number).encode() if one.picture is None or one.text else one.picture.tobytes()
        found.setdefault(key, one)
    return list(found.values())
