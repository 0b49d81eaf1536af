"""Serves the demo of a model: it makes the settings that pictures carry, and waits until the demo is stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from etils import epath
from ml_collections import ConfigDict

from jaxgen.command.flags import Flags
from jaxgen.command.settings import settings_of, texts, weights_of
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxgen.demo.request import Request
    from jaxgen.demo.studio import Studio
    from jaxgen.sampling.restore import TrainedModel

log = logging.getLogger("jaxgen")


def check_demo(flags: Flags) -> None:
    """Raises a UserError where gradio is missing, or the port is none; neither JAX nor gradio is imported."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError('--mode=demo needs gradio, which is not installed: pip install "jaxgen[demo]".')
    if not 1 <= flags.port < 2**16:
        raise UserError(f"--port={flags.port}: a port is a number from 1 to 65535.")


def make_studio(config: ConfigDict, flags: Flags, trained: TrainedModel) -> Studio:
    """Returns what draws for a demo; its pictures carry what those of `--mode=sample` do.

    Raises:
      UserError: there is nothing to see of what the model draws, or there are several processes.
    """
    import jax

    from jaxgen.demo.studio import Studio

    if jax.process_count() > 1:
        raise UserError("--mode=demo is for one process: leave config.distributed as it is by default.")
    weights = weights_of(trained)

    def carried(
        made: ConfigDict, request: Request, files: Mapping[str, tuple[epath.Path, ...]], model: TrainedModel
    ) -> Mapping[str, str]:
        asked = Flags(
            mode="sample", workdir=flags.workdir, checkpoint=flags.checkpoint, name=flags.name, changes=flags.changes,
            num=request.num, seed=request.seed, labels=request.labels, prompt=request.prompt, files=files,
            negative_prompt=request.negative_prompt, strength=request.strength, degrade=request.degrade,
        )  # fmt: skip
        return texts(settings_of(made, asked, model, weights))

    pretrained = config.init_from.get("pretrained", "")
    folder = flags.workdir or (pretrained if isinstance(pretrained, str) else "")  # a chain names several runs
    name = pathlib.PurePath(folder).name or flags.name or str(config.method.name)
    return Studio(config, trained, name, carried)


def serve_demo(config: ConfigDict, flags: Flags, trained: TrainedModel) -> int:
    """Serves the demo of a model until Ctrl-C or SIGTERM, and returns the exit status.

    Raises:
      UserError: as `make_studio`; or the port is not free.
    """
    studio = make_studio(config, flags, trained)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxgen_demo_"))
    os.environ["GRADIO_TEMP_DIR"] = os.fspath(folder / "gradio")  # before gradio is imported; removed at the end
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from jaxgen.demo.page import make_page, serve

        page = make_page(studio, folder)
        log.info("demo: %s (Ctrl-C ends it)", serve(page, flags.host, flags.port))
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0
