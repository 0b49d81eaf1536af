"""Large pages: when they are asked for, and that the command begins anew once, as the same command."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from jaxgen.command import large_pages as pages


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A Linux machine of this choice of pages, libc and GLIBC_TUNABLES."""

    def choose(switch="always [madvise] never", libc=("glibc", "2.36"), tunables=""):
        (tmp_path / "enabled").write_text(switch)
        monkeypatch.setattr(pages, "SWITCH", tmp_path / ("enabled" if switch else "missing"))
        monkeypatch.setattr(pages.platform, "libc_ver", lambda: libc)
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)

    return choose


def test_they_are_asked_for_where_the_system_leaves_it_to_programs(machine):
    machine()
    assert pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    machine(tunables="glibc.malloc.arena_max=2")
    assert pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize(
    "other",
    [
        {"switch": "[always] madvise never"},
        {"switch": "always madvise [never]"},
        {"switch": ""},
        {"libc": ("glibc", "2.31")},
        {"libc": ("", "")},
        {"tunables": "glibc.malloc.hugetlb=0"},
        {"tunables": "glibc.malloc.hugetlb=1"},
    ],
)
def test_they_are_not_elsewhere(machine, other):
    machine(**other)
    assert pages.environment() == {}


def test_a_variable_switches_them_off(machine, monkeypatch):
    machine()
    monkeypatch.setenv("JAXGEN_LARGE_PAGES", "0")
    assert pages.environment() == {}


def test_the_command_begins_anew_once_with_its_own_words_and_number(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from jaxgen.command import large_pages as pages\n"
        "pages.environment = lambda: {} if 'SEEN' in os.environ else {'SEEN': str(os.getpid())}\n"
        "pages.restart_with_large_pages()\n"
        "print(os.environ['SEEN'] == str(os.getpid()), sys.flags.optimize, sys.argv[1:])\n"
    )
    command = [sys.executable, "-O", str(script), "--config.name=a b", "--seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, env=tiny.environment())
    assert done.stdout == "True 1 ['--config.name=a b', '--seed=1']\n", done.stderr
