"""Bad inputs of every sort end in one sentence, and never in a traceback, a hang, or a file that was changed."""

from __future__ import annotations

from fuzzing.cases import Case
from fuzzing.judge import judge


def test_a_fault_is_called_one():
    """The judge is not content with each end of a command."""
    case, said = Case("sample", (), ""), "jaxgen: --num=x: give a number.\n"
    assert judge(case, 2, "a warning\n" + said, 1.0, set()) == "refused"
    assert judge(case, 0, "a warning\n", 1.0, {"out/samples.png"}) == "run"
    ends = [
        (1, "Traceback (most recent call last):\nKeyError: 'x'\n", 1.0, set()), (2, said + said, 1.0, set()),
        (2, "", 1.0, set()), (2, said + "more\n", 1.0, set()), (2, said, 21.0, set()), (139, "", 1.0, set()),
        (2, said, 1.0, {"run/config.json"}), (0, "", 1.0, {"run/checkpoints/2/meta"}), (0, "", 1.0, {"odd/file"}),
        ("hang", "", 1.0, set()),
    ]  # fmt: skip
    for status, err, seconds, changed in ends:
        assert judge(case, status, err, seconds, changed) not in ("refused", "run"), (status, err, changed)
