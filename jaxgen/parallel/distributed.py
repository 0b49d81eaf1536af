"""Makes many processes one run: how they find each other, who writes, how they stop together.

Every process runs the same program on its own share of each batch and holds its own devices' parts of the state. All
of them must call what has collectives in it (updates, sampling, checkpoints); only the first writes logs, pictures
and numbers. Training, its data and its random keys do not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxgen.errors import UserError, first_line
from jaxgen.sizes import whole

log = logging.getLogger("jaxgen")

# What the libraries under a collective say when another process is gone.
_LOST = ("gloo", "connection closed", "connection reset", "coordination service", "heartbeat", "another task died",
         "barrier", "nccl", "socket closed", "peer")  # fmt: skip


def start(section: ConfigDict) -> bool:
    """Joins the run's other processes, where `config.distributed` or the environment names them; before JAX starts.

    Args:
      section: `coordinator`: "host:port" of the first process, "auto" to ask the cluster (TPU pods, SLURM, Open MPI,
        Kubernetes), or empty: alone, unless JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.
        `num_processes`, `process_id`: used with an address. `heartbeat`, `timeout`: seconds after which a silent
        process counts as gone, and that the first meeting may take.

    Returns:
      Whether there are other processes.

    Raises:
      UserError: where the others cannot be met, or what names them is incomplete.
    """
    coordinator = section.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not coordinator:
        return False
    if jax.distributed.is_initialized():
        return jax.process_count() > 1
    named: dict[str, Any] = {}
    if coordinator != "auto":
        number = section.num_processes or _from_environment("JAX_NUM_PROCESSES", "num_processes")
        own = section.process_id if section.process_id >= 0 else _from_environment("JAX_PROCESS_ID", "process_id")
        if not 0 <= own < number:
            raise UserError(
                f"config.distributed.process_id is {own} of {number} processes; count them from 0 to {number - 1}."
            )
        _meet(coordinator, own, number, section.timeout)
        named = {
            "coordinator_address": coordinator,
            "num_processes": number,
            "process_id": own,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=section.timeout,
            heartbeat_timeout_seconds=section.heartbeat,
            shutdown_timeout_seconds=section.timeout,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"config.distributed: the processes of this run did not meet ({first_line(error)}); check "
            "config.distributed.coordinator, num_processes and process_id, and that the address can be reached."
        ) from error
    log.info("process %d of %d, %d devices in all", jax.process_index(), jax.process_count(), jax.device_count())
    return jax.process_count() > 1


def _meet(coordinator: str, process: int, count: int, timeout: float) -> None:
    """Lets the processes meet at the coordinator's address before JAX does, whose runtime aborts if one is absent.

    The first process listens there until each of the others has said its number, and then sends all of them on.

    Raises:
      UserError: in every process; the address is none, the port is taken, nobody listens within `timeout` seconds, or
        a process does not come.
    """
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and 0 < (whole(port) or 0) < 2**16):
        raise UserError(f"config.distributed.coordinator={coordinator!r} is no address; give host:port of process 0.")
    if process:
        _go_there(host.strip("[]"), int(port), process, count, timeout, coordinator)
        return
    bound = int(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator).rpartition(":")[2])
    try:
        dual = socket.has_dualstack_ipv6()
        server = socket.create_server(
            ("", bound), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=count
        )
    except OSError as error:
        raise UserError(
            f"config.distributed.coordinator={coordinator}: process 0 cannot listen on port {bound} "
            f"({os.strerror(error.errno or 0)}); end the program that does, or choose another port."
        ) from error
    with server:
        _await_all(server, count, timeout)


def _await_all(server: socket.socket, count: int, timeout: float) -> None:
    """Waits in process 0 for the others; each sends a line with its number, and is answered by a line."""
    until, came, sentence = time.monotonic() + timeout, dict[int, socket.socket](), ""
    with contextlib.ExitStack() as stack:
        while len(came) < count - 1 and not sentence:
            missing = ", ".join(str(i) for i in range(1, count) if i not in came)
            server.settimeout(max(0.01, until - time.monotonic()))
            try:
                other = stack.enter_context(server.accept()[0])
                other.settimeout(5.0)
                words = other.makefile().readline(100).split()
            except TimeoutError:
                if time.monotonic() >= until:
                    sentence = (
                        f"config.distributed: of {count} processes, these did not come within {timeout:g} seconds: "
                        f"{missing}; start them (config.distributed.timeout sets the time)."
                    )
                continue
            except (OSError, UnicodeDecodeError):  # another program has called and hung up
                continue
            if len(words) != 3 or words[0] != "jaxgen" or whole(words[1]) is None:
                continue
            number = int(words[1])
            if number in came or not 0 < number < count or words[2] != str(count):
                sentence = f"config.distributed: a second process says that it is process {number} of {words[2]}, "
                sentence += f"and there are {count}; give each of them a number of its own."
            came.setdefault(number, other)
        for other in came.values():
            with contextlib.suppress(OSError):
                other.sendall(f"{sentence or 'go'}\n".encode())
                other.recv(1)  # it closes first, so that the port is free for JAX
    if sentence:
        raise UserError(sentence)


def _go_there(host: str, port: int, process: int, count: int, timeout: float, coordinator: str) -> None:
    """Goes from another process to process 0, which may not have started yet."""
    until, reason = time.monotonic() + timeout, ""
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, port), max(0.1, until - time.monotonic())) as there:
                there.sendall(f"jaxgen {process} {count}\n".encode())
                there.settimeout(max(0.1, until - time.monotonic()) + 5.0)  # process 0 may have started later
                answer = there.makefile().readline(1000).strip()
            if answer == "go":
                return
            if answer:
                raise UserError(answer)
            reason = "it hung up"
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))
    raise UserError(
        f"config.distributed.coordinator={coordinator} did not answer process {process} for {timeout:g} seconds "
        f"({reason}); start process 0 there, or correct the address (config.distributed.timeout sets the time)."
    )


def _from_environment(variable: str, key: str) -> int:
    text = os.environ.get(variable, "")
    number = whole(text)
    if number is None:
        raise UserError(
            f"config.distributed.coordinator is set, but config.distributed.{key} is not; set it, or {variable}, or "
            "let config.distributed.coordinator='auto' find out."
        )
    return number


def is_first() -> bool:
    """Returns whether this is the process that writes the files of a run."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gathered(array: jax.typing.ArrayLike) -> np.ndarray:
    """Returns the complete array on the host, in every process."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def added(values: np.ndarray) -> np.ndarray:
    """Returns, in every process, the sum over processes of an array of integers."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0, dtype=values.dtype)


def all_agree(good: bool) -> bool:
    """Returns whether something is true in every process."""
    return int(added(np.array([not good], np.int32))[0]) == 0


def told_to_stop(step: int) -> bool:
    """Returns whether a process has been told to end (SIGTERM), with the same answer in all at the same step."""
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def lost(error: BaseException | None) -> str | None:
    """Returns a sentence where an error means that another process of the run is gone, else None."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return None
    while error is not None:
        text = str(error).lower()
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in text for word in _LOST):
            return (
                f"process {jax.process_index()} of {jax.process_count()} lost touch with another process of this run "
                f"({first_line(error)}); the checkpoints on disk are complete: start all again by the same command."
            )
        error = error.__cause__ or error.__context__
    return None


def leave(status: int) -> None:
    """Ends a process of several at once: an orderly end would wait for those that are gone, or for ever."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
