"""The table of docs/results.md, made from the claims in results/.

    python -m studies.scoreboard            # writes the table into the page
    python -m studies.scoreboard --check    # writes nothing; the status is 1 where the page has another table

A claim is one JSON file, `results/<family>/<name>.json`:

    claim       what is claimed, in words
    numbers     a list; each has `of` (what it is), `value`, and, where there are any, `bar` ("<= 0.03": what was asked
                for before the run), `control` (the same of the control) and `floor`
    control     what the control is; floor: what the floor is
    n, seeds    how many images the number is of, and of how many seeds it is the mean
    command     the command that makes the number, after the trainings that the page tells
    hardware, date, commit    where it ran, the day on which the number was recorded, and the commit that recorded it
    page        the page and heading with the complete table, relative to docs/

Whether a bar is met is computed, not written: the table and the page cannot say otherwise than the number does.
"""

from __future__ import annotations

import decimal
import json
import operator
import re
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec

from jaxgen.errors import UserError
from studies import harness

FOLDER = harness.ROOT / "results"
PAGE = harness.ROOT / "docs" / "results.md"
BEGIN, END = "<!-- made by python -m studies.scoreboard: begin -->", "<!-- end -->"
FAMILIES = {  # folders, in the order of the page
    "diffusion": "Diffusion",
    "gans": "GANs",
    "latent_variables": "Autoencoders and VAEs",
    "text_to_image": "Latents, texts and videos",
    "given_an_image": "Diffusion that is given an image",
    "tuning": "Tuning a trained model",
    "metrics": "Metrics",
    "speed": "Speed",
    "scale": "Scale",
}
COMPARE = {"<=": operator.le, ">=": operator.ge}


class Number(msgspec.Struct, forbid_unknown_fields=True):
    """Holds one number of a claim."""

    of: str
    value: Decimal
    bar: str = ""
    control: Decimal | None = None
    floor: Decimal | None = None

    def __post_init__(self) -> None:
        if self.bar:
            self.met  # noqa: B018, a bar that is none is found when the file is read

    @property
    def met(self) -> bool:
        """Returns whether the value is on the right side of the bar."""
        sign, _, limit = self.bar.partition(" ")
        try:
            return COMPARE[sign](self.value, Decimal(limit))
        except (KeyError, decimal.InvalidOperation) as error:
            raise ValueError(f"a bar is '<= number' or '>= number', not {self.bar!r}") from error


class Claim(msgspec.Struct, forbid_unknown_fields=True):
    """Holds one claim, as its file has it; the module's docstring tells the fields."""

    claim: str
    numbers: Annotated[list[Number], msgspec.Meta(min_length=1)]
    command: str
    hardware: str
    date: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    commit: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{7,40}$")]
    page: str
    control: str = ""
    floor: str = ""
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seeds: Annotated[int, msgspec.Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        for field in ("control", "floor"):
            if any(getattr(number, field) is not None for number in self.numbers) and not getattr(self, field):
                raise ValueError(f"a number has a {field}, and {field!r} does not say what it is")


def read(folder: Path = FOLDER) -> dict[str, dict[str, Claim]]:
    """Returns `{family: {name: claim}}` of all files. Raises a UserError that names the file that is wrong."""
    found: dict[str, dict[str, Claim]] = {family: {} for family in FAMILIES}
    for file in sorted(folder.rglob("*.json")):
        family = file.parent.name
        if family not in found or file.parent.parent != folder:
            raise UserError(f"{file}: claims are in one of the folders {', '.join(FAMILIES)}.")
        try:
            content = json.loads(file.read_text(), parse_float=Decimal)
            found[family][file.stem] = msgspec.convert(content, Claim)
        except (ValueError, msgspec.ValidationError) as error:
            raise UserError(f"{file} is no claim: {error}.") from error
    return found


def table(claims: dict[str, dict[str, Claim]]) -> str:
    """Returns the table as Markdown, a part for each family that has claims."""
    heads = ["what", "number", "bar", "control", "floor", "n", "made by"]
    parts = []
    for family, named in claims.items():
        if named:
            rows = [_row(family, name, claim) for name, claim in named.items()]
            parts.append(f"### {FAMILIES[family]}\n\n{harness.table(heads, rows)}")
    return "\n\n".join(parts)


def _row(family: str, name: str, claim: Claim) -> list[str]:
    several = len(claim.numbers) > 1
    numbers = [f"{number.of}: **{shown(number.value)}**" for number in claim.numbers]
    bars = [f"{number.bar} {'met' if number.met else '**missed**'}" if number.bar else "" for number in claim.numbers]
    how = f"{claim.n:,}" if claim.n else ""
    if claim.seeds > 1:
        how += f"{', ' if how else ''}{claim.seeds} seeds"
    return [
        f"[{claim.claim}]({claim.page})",
        "<br>".join(numbers),
        "<br>".join(bars) if any(bars) else "",
        _beside([number.control for number in claim.numbers], claim.control, several),
        _beside([number.floor for number in claim.numbers], claim.floor, several),
        how,
        f"[`{short(claim.command)}`](../results/{family}/{name}.json)",
    ]


def _beside(values: Iterable[Decimal | None], told: str, several: bool) -> str:
    """Returns the numbers of a control or a floor, in the lines of the values that they belong to, and what it is."""
    texts = ["" if value is None else shown(value) for value in values]
    if not told:
        return ""
    if not any(texts):
        return told
    return "<br>".join([*texts, told] if several else [f"{texts[0]}, {told}"])


def shown(value: Decimal) -> str:
    """Returns a number with the digits that its file has, and a small one such as 0.00000004 as 4e-8."""
    return str(value) if not value or abs(value) >= Decimal("1e-4") else re.sub(r"e-0*", "e-", f"{value:e}")


def short(command: str) -> str:
    """Returns the beginning of a command: the module or the config that it names."""
    found = re.match(r"python (?:-m \S+|main\.py --config=\S+)|\S+(?: -m \S+)?", command)
    return found[0] if found else command


def page(text: str, made: str) -> str:
    """Returns a page with the table between its two marks. Raises a UserError where the marks are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{PAGE} lacks the lines {BEGIN!r} and {END!r}, between which the table is written.")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def main(check: Annotated[bool, "only tell whether the page has the table of the claims"] = False) -> int:
    claims = read()
    text = PAGE.read_text()
    new = page(text, table(claims))
    numbers = [number for named in claims.values() for claim in named.values() for number in claim.numbers]
    bars = [number.met for number in numbers if number.bar]
    same = new == text
    if not check:
        PAGE.write_text(new)
    state = (
        "is up to date" if same else "has another table: run python -m studies.scoreboard" if check else "is written"
    )
    print(
        f"{sum(map(len, claims.values()))} claims, {len(numbers)} numbers; {sum(bars)} of {len(bars)} bars are met; "
        f"docs/results.md {state}"
    )
    return int(check and not same)


if __name__ == "__main__":
    sys.exit(harness.run(main))
