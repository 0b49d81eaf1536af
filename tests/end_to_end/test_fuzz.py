"""Bad inputs of every sort end in one sentence, and never in a traceback, a hang, or a file that was changed."""

from __future__ import annotations

import collections

import pytest
from fuzzing.calls import calls
from fuzzing.cases import Case
from fuzzing.drive import fuzz
from fuzzing.judge import judge

from jaxgen.command.flags import MODES

SEED, NUM, PARTS = 0, 200, 2  # `python tests/fuzzing --seed=1` for others
ROOMS = ("jaxgen.data.hints", "jaxgen.data.sources.captions", "jaxgen.editing", "jaxgen.metrics", "jaxgen.report",
         "jaxgen.report.quiz")  # fmt: skip


@pytest.mark.nightly
def test_what_is_spoilt_was_sound():
    for one, call in zip(fuzz(SEED, range(-len(calls()), 0)), calls(), strict=True):
        sound = call.command in (*MODES, *ROOMS)  # the others are for runs of other methods
        assert one.verdict == "run" or not sound and one.verdict == "refused", (one.case, one.err)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.nightly) for part in range(1, PARTS))])
def test_bad_inputs(part):
    ended = list(fuzz(SEED, range(part, NUM, PARTS)))
    faults = [f"--first={one.number}: {one.verdict}\n{one.case}\n{one.err}" for one in ended if one.fault]
    assert not faults, "\n\n".join(faults)
    counts = collections.Counter(one.verdict for one in ended)
    assert counts["refused"] > len(ended) / 3 and counts["run"] > 0, counts  # the inputs are bad, and not all


def test_a_fault_is_called_one():
    """The judge is not content with each end of a command."""
    case, said = Case("sample", (), ""), "jaxgen: --num=x: give a number.\n"
    assert judge(case, 2, "a warning\n" + said, 1.0, set()) == "refused"
    assert judge(case, 0, "a warning\n", 1.0, {"out/samples.png"}) == "run"
    ends = [
        (1, "Traceback (most recent call last):\nKeyError: 'x'\n", 1.0, set()), (2, said + said, 1.0, set()),
        (2, "", 1.0, set()), (2, said + "more\n", 1.0, set()), (2, said, 21.0, set()), (139, "", 1.0, set()),
        (2, said, 1.0, {"run/config.json"}), (0, "", 1.0, {"run/checkpoints/2/meta"}), (0, "", 1.0, {"arrays.npz"}),
        ("hang", "", 1.0, set()),
    ]  # fmt: skip
    for status, err, seconds, changed in ends:
        assert judge(case, status, err, seconds, changed) not in ("refused", "run"), (status, err, changed)
