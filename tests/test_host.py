"""Programs of many CPU devices run in one order, and those of one or two as XLA likes."""

from __future__ import annotations

import signal

import pytest

from jaxgen import host


@pytest.mark.parametrize(
    ("flags", "count", "added"),
    [
        ("--xla_force_host_platform_device_count=8", None, True),
        ("--xla_force_host_platform_device_count=2", None, False),
        ("", "3", True),
        ("", "2", False),
        ("--xla_cpu_enable_concurrency_optimized_scheduler=true", "8", False),  # the user's own choice stays
    ],
)
def test_more_than_two_devices_run_in_one_order(monkeypatch, flags, count, added):
    monkeypatch.setenv("XLA_FLAGS", flags)
    if count is None:
        monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    else:
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", count)
    host.use_cpu_cores()
    host.use_cpu_cores()  # a second call adds nothing
    assert host.os.environ["XLA_FLAGS"] == f"{flags} {host.IN_ORDER if added else ''}".strip()


@pytest.mark.parametrize("ignored, heard", [(False, (signal.SIGTERM, signal.SIGHUP)), (True, (signal.SIGTERM,))])
def test_a_closed_terminal_stops_a_run_unless_nohup_says_otherwise(ignored, heard):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert host.stop_signals() == heard
    finally:
        signal.signal(signal.SIGHUP, before)
