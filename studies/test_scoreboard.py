"""The claims in results/ are complete, stand on the pages that they name, and make the table of the page."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from jaxgen.errors import UserError
from studies import harness, scoreboard

CLAIM = {
    "claim": "a model of digits",
    "numbers": [{"of": "excess", "value": 0.0120, "bar": "<= 0.03", "control": 0.5}],
    "control": "noise",
    "command": "python -m studies.gan_table --out=DIR",
    "hardware": "two CPU cores",
    "date": "2026-01-31",
    "commit": "0123abc",
    "page": "results/gans.md",
}


def write(folder, claim, family="gans"):
    path = folder / family / "digits.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(claim))
    return path


def test_the_page_has_the_table_of_the_claims(capsys):
    assert scoreboard.main(check=True) == 0, capsys.readouterr().out


def test_every_number_stands_on_the_page_that_its_claim_names():
    for named in scoreboard.read().values():
        for name, claim in named.items():
            file = harness.ROOT / "docs" / claim.page.partition("#")[0]
            text = file.read_text().replace(",", "")
            for number in claim.numbers:
                value = scoreboard.shown(number.value)
                assert re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", text), f"{name}: {value} is not on {file}"


def test_a_table_tells_met_from_missed(tmp_path):
    claim = json.loads(json.dumps(CLAIM))
    claim["numbers"].append({"of": "accuracy", "value": 0.9, "bar": ">= 0.95"})
    path = write(tmp_path, claim)
    path.write_text(path.read_text().replace("0.012", "0.0120"))
    made = scoreboard.table(scoreboard.read(tmp_path))
    assert "excess: **0.0120**<br>accuracy: **0.9**" in made, "digits stay as they were written"
    assert "<= 0.03 met<br>>= 0.95 **missed**" in made and "0.5<br><br>noise" in made
    assert "(../results/gans/digits.json)" in made and "`python -m studies.gan_table`" in made


@pytest.mark.parametrize(
    "change, said",
    [
        ({"numbers": []}, "length"),
        ({"numbers": [{"of": "x", "value": 1, "bar": "under 3"}]}, "a bar is"),
        ({"control": ""}, "'control' does not say what it is"),
        ({"date": "yesterday"}, "$.date"),
        ({"numbr": 3}, "numbr"),
    ],
)
def test_a_wrong_claim_is_named(change, said, tmp_path):
    path = write(tmp_path, CLAIM | change)
    with pytest.raises(UserError) as error:
        scoreboard.read(tmp_path)
    assert str(path) in str(error.value) and said in str(error.value)


def test_a_claim_of_no_family_and_a_page_without_marks(tmp_path):
    write(tmp_path, CLAIM, "birds")
    with pytest.raises(UserError, match="one of the folders"):
        scoreboard.read(tmp_path)
    with pytest.raises(UserError, match="lacks the lines"):
        scoreboard.page("# Results\n", "| a |")


def test_a_bar_counts_both_sides():
    assert scoreboard.Number("x", Decimal("1.0"), "<= 1.0").met and scoreboard.Number("x", Decimal("1.0"), ">= 1").met
    assert not scoreboard.Number("x", Decimal("1.01"), "<= 1.0").met
