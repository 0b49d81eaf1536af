"""Tests the harness of studies and benchmarks, and that every script of both folders starts."""

import contextlib
import multiprocessing
import pathlib
import runpy
import sys
import traceback
from typing import Annotated

import pytest

from jaxgen.errors import UserError
from studies import harness

SCRIPTS = sorted(
    f"{folder}.{path.stem}"
    for folder in ("studies", "benchmarks")
    for path in (harness.ROOT / folder).glob("*.py")
    if "__main__" in path.read_text() and path.stem != "harness" and not path.stem.startswith("test_")
)
SCRIPTS += sorted(f"studies.{path.parent.name}" for path in (harness.ROOT / "studies").glob("*/__main__.py"))


def example(
    *extra: str,
    out: pathlib.Path,
    num: Annotated[int, "images a row"] = 7,
    scales: tuple[float, ...] = (1.0, 2.0),
    other: list[str] = (),
    small: bool = False,
) -> int:
    """Shows what a study's main looks like."""
    if num < 0:
        raise UserError("--num is below 0.")
    print(out.name, num, scales, list(other), small, *extra)
    return 3


def test_a_function_is_a_command(capsys):
    assert harness.run(example, ["--out=a/b"]) == 3
    assert capsys.readouterr().out == "b 7 (1.0, 2.0) [] False\n"
    flags = ["--out=c", "--num=9", "--scales=3", "--other=x", "--other=y", "--small", "--config.seed=1"]
    assert harness.run(example, flags) == 3
    assert capsys.readouterr().out == "c 9 (3.0,) ['x', 'y'] True --config.seed=1\n"


def test_what_is_missing_or_wrong_is_said(capsys):
    with pytest.raises(SystemExit):
        harness.run(example, [])
    assert "--out" in capsys.readouterr().err
    assert harness.run(example, ["--out=a", "--num=-1"]) == 2
    assert capsys.readouterr().err.endswith(": --num is below 0.\n")


def test_rows_are_made_once_and_belong_to_their_command(tmp_path):
    path, made = tmp_path / "deep" / "rows.jsonl", []

    def make():
        made.append(1)
        return {"value": len(made)}

    for num, value in ((5, 1), (6, 2), (5, 1)):
        rows = harness.Rows(path, num=num)
        assert rows.get({"name": "a"}, make) == {"num": num, "name": "a", "value": value}
        assert len(rows.where(name="a")) == len(list(rows)) == 1


def test_a_row_that_a_kill_cut_short_is_made_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"solver": "ddim"}\n{"solver": "dd')
    assert list(harness.Rows(path)) == [{"solver": "ddim"}]
    assert path.read_text().count("\n") == 1  # the next row begins on a line of its own


def test_tables():
    assert harness.table(["a", "b"], [[1, None], ["x", 2.5]]) == "| a | b |\n|---|---|\n| 1 |  |\n| x | 2.5 |"
    assert harness.mean_and_deviation([1.0, 3.0]) == "2.000 (1.000)"
    assert harness.mean_and_deviation([1.0], digits=1) == "1.0" and harness.mean_and_deviation([], empty="-") == "-"


def start(script: str, said: pathlib.Path) -> None:
    """What `python -m script --help` does, with all that it says in a file."""
    sys.argv = [script, "--help"]
    with said.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        try:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        except Exception:
            traceback.print_exc()
            raise


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script, tmp_path):
    """In a process of its own, which a server forks that has imported what all of them need of other packages."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flax.linen", "jax", "optax", "orbax.checkpoint", "scipy.stats", "PIL.Image"])
    process = context.Process(target=start, args=(script, tmp_path / "said.txt"))
    process.start()
    process.join(300)
    said = (tmp_path / "said.txt").read_text()
    if "No module named 'torch'" in said:
        pytest.skip("needs the extra 'parity'")
    assert process.exitcode == 0 and "python -m" in said, said


def test_a_repeated_flag_names_what_it_gives():
    given = ["no words=runs/a=b", " two = files/c "]
    assert harness.named(given, "--run", "all=runs/a") == {"no words": "runs/a=b", "two": "files/c"}
    for text in ("runs/a", "=runs/a", "all="):
        with pytest.raises(UserError, match="give --run=NAME=VALUE, such as all=runs/a"):
            harness.named([text], "--run", "all=runs/a")
    with pytest.raises(UserError, match="'a' is given twice"):
        harness.named(["a=b", "a=c"], "--run", "all=runs/a")
