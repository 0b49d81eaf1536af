"""Publishes a run: writes a folder that others sample from and, with --push_to, sends it to the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import pathlib
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from jaxgen.command.flags import Flags
from jaxgen.command.settings import settings_of, texts
from jaxgen.errors import UserError
from jaxgen.files import check_free, is_remote
from jaxgen.files.hub import check_package, hub_name, send_folder

if TYPE_CHECKING:
    from jaxgen.sampling.restore import TrainedModel

log = logging.getLogger("jaxgen")


def check_publish(config: ConfigDict, flags: Flags) -> None:
    """Checks what can be checked before weights are read.

    Raises:
      UserError: --push_to is malformed or its package missing, --out cannot be written or has files, or the run cannot
        be used without folders that others do not have.
    """
    from jaxgen.sampling.publishing.portable import check_portable

    if flags.push_to:
        hub_name(flags.push_to, "--push_to")
        check_package("--push_to", flags.push_to)
    elif flags.private:
        raise UserError("--private has no use without --push_to: a folder is sent nowhere.")
    check_portable(config, flags.workdir)
    if is_remote(flags.out):
        raise UserError(f"--out={flags.out}: a run is published from a folder of this machine; name one.")
    check_free(flags.out, "--out")


def publish_run(flags: Flags, trained: TrainedModel) -> int:
    """Writes --out, says what it holds, and sends it to --push_to; returns the exit status.

    Raises:
      UserError: there are several processes, the folder cannot be made, or the hub refuses it.
    """
    import jax

    from jaxgen.sampling.publishing.folder import write_folder

    if jax.process_count() > 1:
        raise UserError("--mode=publish is for one process: leave config.distributed as it is by default.")
    repository = hub_name(flags.push_to, "--push_to") if flags.push_to else None
    name = repository.repo.partition("/")[2] if repository else pathlib.Path(os.path.abspath(flags.workdir)).name
    files = write_folder(
        flags.out, trained, flags.workdir, licence=flags.licence, name=name,
        place=repository.text if repository else "FOLDER", num=flags.num, seed=flags.seed,
        carried=texts(settings_of(trained.generator.config, flags, trained)),
    )  # fmt: skip
    log.info("%s has %s", flags.out, ", ".join(files))
    if repository:
        message = f"{name} at step {trained.step}"
        address = send_folder(pathlib.Path(flags.out), files, repository.text, message, flags.private)
        log.info("sent: %s", address)
    return 0
