"""How every command ends: one sentence and a status for what is expected, whatever the state of its streams."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny

from jaxgen.entry_point import Parser, count, disk_trouble, entry_point, seed, status_of
from jaxgen.errors import UserError
from jaxgen.files import check_writable, check_writable_file

# every `python -m jaxgen.<room>`: (module of its `main`, its arguments with `{}` where a path is read)
COMMANDS = {
    "report": ("jaxgen.report.__main__", ["{}"]),
    "report.quiz": ("jaxgen.report.quiz", ["{}"]),
    "metrics": ("jaxgen.metrics.command", ["{}", "{}", "--metrics=psnr"]),
    "editing": ("jaxgen.editing.__main__", ["--workdir={}", "--out=out"]),
    "editing.unclip": ("jaxgen.editing.unclip", ["--workdir={}", "--clip={}", "--image={}", "--out=out"]),
    "sampling.latents": ("jaxgen.sampling.latents", ["{}", "out.npz"]),
    "evaluation.export_classifier": ("jaxgen.evaluation.export_classifier", ["{}"]),
    "data.sources.captions of a folder": ("jaxgen.data.sources.captions", ["folder:{}"]),
    "data.sources.captions of a file": ("jaxgen.data.sources.captions", ["npz:{}"]),
}
WRITERS = {
    "editing": ("jaxgen.editing.__main__", ["--workdir=run", "--out={}"]),
    "editing.unclip": ("jaxgen.editing.unclip", ["--workdir=run", "--clip=run", "--image=a.png", "--out={}"]),
    "sampling.latents": ("jaxgen.sampling.latents", ["run", "{}/out.npz"]),
    "metrics": ("jaxgen.metrics.command", ["run", "run", "--metrics=psnr", "--json={}/out.json"]),
}


@pytest.fixture
def complaint(capsys, tmp_path, monkeypatch):
    """Runs a command's `main`, which must refuse; gives the one line that it says."""
    monkeypatch.chdir(tmp_path)

    def refused(module: str, *arguments: str) -> str:
        status = importlib.import_module(module).main(list(arguments))
        assert status == 2
        return tiny.Result(status, *capsys.readouterr()).complaint

    return refused


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["absent", "folder", "file", "below a file", "not a run"])
def test_paths_that_are_not_what_is_read(command, kind, complaint, tmp_path):
    path = tmp_path / "given"
    if kind == "folder":
        path.mkdir()
    elif kind == "not a run":
        path.mkdir()
        (path / "config.json").write_text("[]")
    elif kind != "absent":
        path.write_text("not what was wanted")
    path = path / "below" if kind == "below a file" else path
    module, arguments = COMMANDS[command]
    assert path.name in complaint(module, *[text.format(path) for text in arguments])
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.npz").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", COMMANDS)
def test_paths_that_may_not_be_read(command, complaint, tmp_path):
    (tmp_path / "closed" / "run").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    module, arguments = COMMANDS[command]
    try:
        assert "closed" in complaint(module, *[text.format(tmp_path / "closed" / "run") for text in arguments])
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("place", ["/sys/jaxgen", "/proc/jaxgen", "a file"])
def test_places_that_cannot_be_written_are_refused_before_the_work(command, place, complaint, tmp_path):
    (tmp_path / "a file").write_text("")
    place = str(tmp_path / place)  # an absolute place stays itself
    module, arguments = WRITERS[command]
    said = complaint(module, *[text.format(place) for text in arguments])
    assert place in said and ("--out" in said or "OUT.npz" in said or "--json" in said)


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", "--seed=-1"], "--seed=-1"),
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", f"--seed={2**32}"], "[0, 2**32)"),
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", "--seed=one"], "--seed=one"),
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", "--num=0"], "--num=0"),
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", "--sed=1"], "did you mean '--seed'?"),
        ("jaxgen.editing.__main__", ["--workdir=r"], "--out"),
        ("jaxgen.editing.__main__", ["--workdir=--", "--out=o"], "--workdir=--: the two dashes"),
        ("jaxgen.metrics.command", ["a", "b", "--batch=0"], "--batch=0"),
        ("jaxgen.metrics.command", ["a", "b", "--json=x", "--metrics=psnr", "--json=y"], "--json is given twice"),
        ("jaxgen.metrics.command", ["a", "b", "--recompute", "--recompute"], "--recompute is given twice"),
        ("jaxgen.editing.__main__", ["--workdir=r", "--out=o", "--workd=s"], "--workdir is given twice; give it once"),
        ("jaxgen.evaluation.export_classifier", ["r", "--out=o", "--trust=a", "--trust=b", "--out=p"], "--out is giv"),
        ("jaxgen.metrics.command", ["a", "b", "--num=-1"], "--num=-1"),
        ("jaxgen.metrics.command", ["a", "b", "--resolution=²"], "--resolution=² is no size"),
        ("jaxgen.metrics.command", ["a", "b", f"--resolution={'9' * 5000}"], "is no size"),
        ("jaxgen.metrics.command", ["a", "b", "--resolution=8x2147483648"], "lower one of the two"),
        ("jaxgen.metrics.command", ["a"], "B"),
        ("jaxgen.sampling.latents", ["run"], "OUT.npz"),
        ("jaxgen.sampling.latents", ["run", "."], "is a folder"),
        ("jaxgen.data.sources.captions", ["npz:x", "--least=0"], "--least=0"),
        ("jaxgen.report.__main__", ["a", "b"], "b"),
        ("jaxgen.report.quiz", [], "ANSWERS"),
    ],
)
def test_arguments_that_cannot_be(module, arguments, words, complaint):
    assert words in complaint(module, *arguments)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("A sentence."), 2, "jaxgen: A sentence.\n"),
        (KeyboardInterrupt(), 130, "jaxgen: interrupted.\n"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 2, "no such file or folder (a/b)"),
        (PermissionError(13, "Permission denied", "a/b"), 2, "permission denied"),
        (IsADirectoryError(21, "Is a directory", "a/b"), 2, "a folder; name a file (a/b)"),
        (OSError(30, "Read-only file system", "a/b"), 2, "read-only"),
        (OSError("half a message"), 2, "half a message"),
    ],
)
def test_expected_errors_are_one_sentence(error, status, words, capsys):
    @entry_point
    def main(arguments):
        raise error

    assert main([]) == status
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_status_and_none_are_handed_on():
    assert status_of(lambda: None) == 0 and status_of(lambda: 3) == 3


def test_a_bug_keeps_its_traceback_and_the_streams_come_back():
    before = sys.stdout, sys.stderr

    def bug():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        status_of(bug)
    assert (sys.stdout, sys.stderr) == before


def test_a_further_exception_may_be_explained(capsys):
    def bug():
        raise RuntimeError("connection reset")

    assert status_of(bug, explain=lambda error: f"said of {error}") == 2
    assert capsys.readouterr().err == "jaxgen: said of connection reset\n"


def test_a_full_disk_is_found_in_the_causes_of_an_error():
    error = RuntimeError("saving failed")
    error.__cause__ = ValueError("RESOURCE_EXHAUSTED: No space left on device")
    assert "disk of the workdir is full" in disk_trouble(error)
    assert disk_trouble(RuntimeError("saving failed")) is None


def test_types_of_arguments():
    assert seed("0") == 0 and seed(str(2**32 - 1)) == 2**32 - 1 and count("num", 0)("0") == 0
    for wrong in ("-1", "1.5", "", str(2**32), "²", "١٢", "+-1", "9" * 5000):
        with pytest.raises(UserError, match="--seed"):
            seed(wrong)
    with pytest.raises(UserError, match="--num=0"):
        count("num")("0")
    with pytest.raises(UserError, match="'--num'"):
        parser = Parser(prog="x")
        parser.add_argument("--num")
        parser.parse_args(["--nmu=3"])


def test_whether_a_place_can_be_written_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b", "--out")
    check_writable_file(tmp_path / "c" / "d.json", "--json")
    assert not any(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    check_writable(tmp_path / "a", "--out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


SCRIPT = """
import gc, os, signal, sys, time
from jaxgen.entry_point import entry_point
@entry_point
def main(arguments):
    {body}
sys.exit(main())
"""


def spawn(body: str, shell: str) -> subprocess.CompletedProcess:
    """Runs a command with this body through the shell, which has it as `$0 -c "$1"`."""
    words = ["bash", "-c", shell, sys.executable, SCRIPT.format(body=body.replace("\n", "\n    "))]
    return subprocess.run(words, cwd=tiny.ROOT, capture_output=True, text=True, timeout=60)


def test_stderr_that_cannot_take_a_word_does_not_end_the_work(tmp_path):
    body = f"print('x' * 100_000, file=sys.stderr)\nprint('more', file=sys.stderr)\nopen({str(tmp_path / 'f')!r}, 'w')"
    for shell in ('"$0" -c "$1" 2>/dev/full', '"$0" -c "$1" 2>&-', '"$0" -c "$1" 2> >(true)'):
        assert spawn(body, shell).returncode == 0, shell
        assert (tmp_path / "f").exists(), shell
        (tmp_path / "f").unlink()


def test_files_do_not_take_the_place_of_a_closed_stderr(tmp_path):
    body = f"file = open({str(tmp_path / 'f')!r}, 'w')\nos.write(2, b'noise')\nfile.write('content')"
    assert spawn(body, '"$0" -c "$1" 2>&-').returncode == 0
    assert (tmp_path / "f").read_text() == "content"


def test_a_reader_that_leaves_ends_the_command_without_a_word():
    done = spawn("for i in range(100_000): print(i)", '"$0" -c "$1" | head -1; echo ${PIPESTATUS[0]}')
    assert done.stdout.split() == ["0", "141"] and done.stderr == ""


def test_stdout_on_a_full_disk_is_said():
    done = spawn("print('numbers')", '"$0" -c "$1" >/dev/full')
    assert done.returncode == 2 and done.stderr.startswith("jaxgen: the disk is full")


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 0)])
def test_a_signal_that_meets_the_garbage_collector_is_not_lost(number, status):
    """The handler runs inside a callback of the collector, where Python swallows what it raises."""
    body = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it from birth
def leave(number, frame): raise SystemExit(0)
signal.signal(signal.SIGTERM, leave)
def callback(phase, info):
    if phase == "start":
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.{number})
gc.callbacks.append(callback)
gc.collect()
for _ in range(200): time.sleep(0.05)
print("went on as if nothing had been asked")
"""
    done = spawn(body, '"$0" -c "$1"')
    assert done.returncode == status and done.stdout == "" and "Traceback" not in done.stderr


def test_what_a_failed_read_of_a_checkpoint_leaves_behind_is_not_told_again():
    body = """
import types
source = "async def read():\\n try:\\n  await wait()\\n finally:\\n  raise ValueError(place)"
for place in "/lib/orbax/checkpoint/read.py", "/own/read.py":
    names = {"wait": types.coroutine(lambda: (yield)), "place": place}
    exec(compile(source, place, "exec"), names)
    left = names["read"]()
    left.send(None)
    del left
    gc.collect()
"""
    done = spawn(body, '"$0" -c "$1"')
    assert done.returncode == 0 and "ValueError: /own/read.py" in done.stderr and "ValueError: /lib" not in done.stderr


def test_numbers_of_pairs_are_written_where_asked(tmp_path, monkeypatch, capsys):
    """A sound command passes the same checks."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    main = importlib.import_module("jaxgen.metrics.command").main
    assert main(["a.npz", "a.npz", "--metrics=l1", "--json=new/out.json"]) == 0
    assert (tmp_path / "new" / "out.json").read_text() == capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (ValueError("The precision 'F16_F16_F32' is not supported by dot_general on CPU"), "'bfloat16' or 'float32'"),
        (MemoryError("Unable to allocate 3 TiB"), "config.train.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\nmore"), "--mode=plan"),
    ],
)
def test_what_the_machine_cannot_do_is_one_sentence(error, named, capsys):
    def fail():
        raise error

    assert status_of(fail) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1


def test_other_errors_keep_their_traceback():
    def fail():
        raise ValueError("The precision of this is unknown")

    with pytest.raises(ValueError, match="precision of this"):
        status_of(fail)


def test_a_line_of_the_log_is_one_line_that_a_terminal_can_show(caplog):
    """Names of files stand in it."""
    caplog.set_level(logging.INFO, logger="jaxgen")

    def tell():
        logging.getLogger("jaxgen").info("%s: it is resized to %dx%d", "a\x1b[2J\nb\r.png", 8, 8)

    assert status_of(tell) == 0
    assert caplog.messages == ["a\\x1b[2J b\\r.png: it is resized to 8x8"]


def test_what_a_file_holds_cannot_steer_the_terminal(capsys):
    """Escape sequences, lines of their own and lone surrogates may stand in names; a long value loses its middle."""

    def fail():
        raise UserError("\x1b[2J\u202e \udcff 'é' a\nb " + "x" * 100_000 + " is unknown.")

    assert status_of(fail) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxgen: \\x1b[2J\\u202e \\udcff 'é' a b xxx")
    assert said.endswith("x is unknown.\n") and "..." in said and len(said) < 600
