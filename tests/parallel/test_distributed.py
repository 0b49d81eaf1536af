"""Several processes as one run: refusals and checksums here, whole runs of two processes as slow tests."""

from __future__ import annotations

import pathlib
import signal
import socket
import threading
import time

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.config import defaults
from jaxgen.errors import UserError
from jaxgen.parallel import distributed
from jaxgen.parallel.mesh import make_mesh, place, place_full_batch
from jaxgen.runs import comparison, rehearsal
from jaxgen.runs.integrity import SPLIT, _mixed, checksums, verify


def whole(array: np.ndarray) -> int:
    return _mixed(array, (slice(None),) * array.ndim, array.shape)


# ------------------------------------------------------------------ one process


def test_alone_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    assert distributed.start(defaults().distributed) is False
    assert distributed.is_first() and not distributed.told_to_stop(3) and distributed.lost(OSError("gloo")) is None
    distributed.barrier("nobody else")
    assert distributed.all_agree(True) and not distributed.all_agree(False)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, r"config\.distributed\.num_processes is not; set it, or JAX_NUM_PROCESSES"),
        ({"num_processes": 2}, r"config\.distributed\.process_id is not; set it, or JAX_PROCESS_ID"),
        ({"num_processes": 2, "process_id": 2}, r"process_id is 2 of 2 processes; count them from 0 to 1"),
    ],
)
def test_an_incomplete_name_of_the_others_is_refused(monkeypatch, named, message):
    for variable in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(variable, raising=False)
    section = defaults().distributed
    section.update(coordinator="localhost:1", **named)
    with pytest.raises(UserError, match=message):
        distributed.start(section)


def free_port() -> int:
    with socket.socket() as test:
        test.bind(("localhost", 0))
        return test.getsockname()[1]


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":80", "localhost:x", "localhost:0", "localhost:70000"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match=rf"coordinator='{address}' is no address; give host:port"):
        distributed._meet(address, 1, 2, 5.0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "no-such-host.invalid"])
def test_a_coordinator_that_does_not_answer_is_one_sentence(host):
    """Without the test JAX's runtime ends the process by an abort."""
    section, began = defaults().distributed, time.monotonic()
    section.update(coordinator=f"{host}:{free_port()}", num_processes=2, process_id=1, timeout=1)
    with pytest.raises(UserError, match=rf"{host}:\d+ did not answer process 1 for 1 seconds \(.+\); start process 0"):
        distributed.start(section)
    assert time.monotonic() - began < 10


def met(numbers: list[int], count: int, timeout: float, late: float = 0.0) -> dict[int, str]:
    """What each of some processes (threads here) says of their meeting; "" for a good one. The first may be late."""
    address, said = f"localhost:{free_port()}", dict[int, str]()

    def meet(place: int) -> None:
        time.sleep(late if place == 0 else 0.0)
        try:
            distributed._meet(address, numbers[place], count, timeout)
            said[place] = ""
        except UserError as error:
            said[place] = str(error)

    threads = [threading.Thread(target=meet, args=(place,)) for place in range(len(numbers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_processes_meet_in_any_order():
    assert met([0, 1, 2, 3], 4, 20.0, late=0.3) == dict.fromkeys(range(4), "")


def test_who_does_not_come_is_named_in_every_process():
    said = met([0, 2], 4, 1.0)
    assert said[0] == said[1] and "of 4 processes, these did not come within 1 seconds: 1, 3; start them" in said[0]


def test_two_processes_of_one_number_are_refused():
    said = met([0, 1, 1], 3, 3.0)
    assert "process 1 of 3, and there are 3; give each of them a number of its own" in said[0]


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        section = defaults().distributed
        section.update(coordinator=f"localhost:{other.getsockname()[1]}", num_processes=2, process_id=0)
        with pytest.raises(UserError, match=r"process 0 cannot listen on port \d+ \(Address already in use\)"):
            distributed.start(section)


def test_a_whole_batch_is_placed_as_its_shares_are():
    mesh = make_mesh(2, 8, fsdp=2, tensor=2)
    batch = {"image": np.arange(8 * 3).reshape(8, 3)}
    one, two = place(batch, mesh)["image"], place_full_batch(batch, mesh)["image"]
    assert one.sharding == two.sharding and np.array_equal(one, two)
    assert {shard.data.shape for shard in one.addressable_shards} == {(2, 3)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "float64", "uint32"])
def test_the_sum_of_a_split_array_does_not_depend_on_how(dtype):
    values = np.random.default_rng(0).integers(0, 2, (12, 6, 8)).astype(jax.numpy.dtype(dtype))
    for cut in (((0, 3), (0, 12)), ((1, 2), (0, 6)), ((2, 4), (0, 8))):
        axis, size = cut[0]
        parts = []
        for start in range(0, cut[1][1], size):
            index = tuple(slice(start, start + size) if d == axis else slice(None) for d in range(3))
            parts.append(_mixed(values[index], index, values.shape))
        assert sum(parts) % 2**32 == whole(values)


def test_the_sum_sees_a_flipped_bit_and_a_swap():
    values = np.random.default_rng(0).normal(size=(70, 900)).astype(np.float32)  # more than one chunk of them
    flipped, swapped = values.copy(), values.copy()
    flipped.view(np.uint32)[69, 899] ^= 1
    swapped[[3, 4]] = values[[4, 3]]
    assert len({whole(values), whole(flipped), whole(swapped)}) == 3


def test_what_was_recorded_as_a_sum_is_verified_as_one_on_any_devices():
    values = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    recorded = {"net/w" + SPLIT: whole(values)}
    for mesh in (make_mesh(1, 8, fsdp=8), make_mesh(1, 8)):
        split = jax.device_put(values, NamedSharding(mesh, PartitionSpec("fsdp")))
        verify(checksums({"net": {"w": split}}, recorded), recorded)
        with pytest.raises(ValueError, match="'net/w#sum' is not what was written"):
            verify(checksums({"net": {"w": split + 1e-6}}, recorded), recorded)


# ------------------------------------------------------------------ two processes

EXTRA = [
    "--config.train.checkpoint_every_images=64",
    "--config.train.sample_every_images=0",
    "--config.train.tensorboard=False",
    "--config.evaluate.at_end=False",
    "--config.train.keep_last=9",
]


def begin(folder: pathlib.Path, name: str, count: int, *extra: str):
    config = tiny.write_config(folder)
    command = tiny.command(f"--config={config}", f"--workdir={folder / name}", *tiny.replaced(EXTRA, *extra))
    return rehearsal.Processes(command, folder / name, count, devices=2)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_two_processes_do_what_one_does(tmp_path, fsdp):
    """With a state that lies over both, too; and one of them goes on alone."""
    extra = (f"--config.mesh.fsdp={fsdp}", "--config.sharding.min_size=16")
    assert begin(tmp_path, "one", 1, *extra).wait() == [0]
    run = begin(tmp_path, "two", 2, *extra)
    assert run.wait() == [0, 0], run.logs[0].read_text()
    found = comparison.difference(tmp_path / "one", tmp_path / "two")
    assert found["losses"] < 1e-5 and found["arrays"] < 1e-5
    if fsdp == 2:
        assert begin(tmp_path, "two", 1, *extra, "--config.train.total_images=320").wait() == [0]
        assert comparison.finished_steps(tmp_path / "two")[-1] == 10


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_when_one_is_killed_the_others_end_and_say_so(tmp_path, process):
    run = begin(tmp_path, "run", 2, "--config.train.total_images=100_000")
    lived, statuses = run.disturb(process, signal.SIGKILL)
    assert lived < 60 and statuses[process] == -signal.SIGKILL and statuses[1 - process] not in (0, None)
    assert run.said(1 - process), run.logs[1 - process].read_text()


@pytest.mark.slow
def test_sigterm_to_one_stops_all_saved_at_the_same_step(tmp_path):
    run = begin(tmp_path, "run", 2, "--config.train.total_images=100_000", "--config.train.checkpoint_every_images=640")
    _, statuses = run.disturb(1, signal.SIGTERM)
    assert statuses == [0, 0], run.logs[0].read_text()
    assert comparison.finished_steps(tmp_path / "run")[-1] > 20
