"""Reads a request: the values of a page's controls, each checked, so that what is wrong is one sentence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.demo.controls import MOST_IMAGES, Controls, in_range
from jaxgen.errors import UserError

MOST_TEXT = 10_000  # characters of a prompt
MOST_FILES = 64  # of one entry


@dataclasses.dataclass(frozen=True)
class Request:
    """Holds what a user asks for; the fields have the names and meanings of the flags of `--mode=sample`.

    Attributes:
      numbers: `{key of the config: value}` of those that were given.
      choices: `{key of the config: word}`.
      pictures: `{entry: files}`.
      panels: whether the method's panels are drawn, too.
      watch: whether states on the way are shown while the program runs.
    """

    seed: int = 0
    num: int = 1
    labels: tuple[int, ...] | None = None
    prompt: tuple[str, ...] = ()
    negative_prompt: str = ""
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    strength: float | None = None
    degrade: bool = False
    panels: bool = False
    watch: bool = False


def read_request(controls: Controls, values: Mapping[str, Any]) -> Request:
    """Returns a request from the values of controls by their names; what is missing, None or "" is not given.

    Args:
      controls: those of the model; values of other controls are not read.
      values: "seed", "num", "labels" (names, or numbers), "prompt" (one a line), "negative_prompt", "strength",
        "degrade", "panels", "watch", the keys of `Controls.numbers` and `Controls.choices`, and entries of
        `Controls.pictures` (a file, or several).

    Raises:
      UserError: a value is out of its range.
    """
    seed = _whole("Seed", values.get("seed") or 0, 0, 2**32 - 1)
    num = _whole("The number of images", 1 if values.get("num") in (None, "") else values["num"], 1, MOST_IMAGES)
    prompts = _prompts(controls, values)
    labels = _labels(controls, values.get("labels") or ())
    pictures = {entry: files for entry in controls.pictures if (files := _files(entry, values.get(entry)))}
    for name, count in {"prompts": len(prompts), "classes": len(labels or ()), **{
        f"pictures ({entry})": len(files) for entry, files in pictures.items() if not controls.pictures[entry].several
    }}.items():  # fmt: skip
        if count > num:
            raise UserError(f"There are {count} {name} for {num} images, and image i takes number i: ask for {count}.")
    strength = _number("Strength", values.get("strength")) if controls.strength else None
    if strength is not None and not 0 <= strength <= 1:
        raise UserError(f"Strength is {strength:g}; it is a share from 0, which gives the picture back, to 1.")
    if strength is not None and "image" not in pictures:
        raise UserError("Strength is the share of a picture that may change: give a picture, or leave it empty.")
    degrade = controls.degrade and bool(values.get("degrade"))
    if degrade and "image" not in pictures:
        raise UserError("A clean picture is needed, of which the model's input is made: give one.")
    return Request(
        seed=seed,
        num=num,
        labels=labels,
        prompt=prompts,
        negative_prompt=_text("The negative prompt", values.get("negative_prompt")) if controls.negative_prompt else "",
        numbers=_numbers(controls, values),
        choices=_choices(controls, values),
        pictures=pictures,
        strength=strength,
        degrade=degrade,
        panels=controls.panels and bool(values.get("panels")),
        watch=controls.watch and bool(values.get("watch")),
    )


def read_place(x: object, y: object) -> tuple[float, float]:
    """Returns a place of the plane of latents.

    Raises:
      UserError: x or y is no number in [0, 1].
    """
    found = []
    for name, value in (("x", x), ("y", y)):
        number = _number(name, value)
        if number is None or not 0 <= number <= 1:
            raise UserError(f"{name} is {str(value)[:50]}; a place of the plane has numbers from 0 to 1.")
        found.append(number)
    return found[0], found[1]


def _prompts(controls: Controls, values: Mapping[str, Any]) -> tuple[str, ...]:
    if not controls.prompt:
        return ()
    lines = [line.strip() for line in _text("The prompt", values.get("prompt")).splitlines()]
    found = tuple(line for line in lines if line)
    if not found and controls.prompt == "needed":
        raise UserError("This model draws what a text says: write a prompt, or several, one a line.")
    return found


def _text(name: str, value: object) -> str:
    found = str(value or "")
    if len(found) > MOST_TEXT:
        raise UserError(f"{name} has {len(found)} characters; {MOST_TEXT} are the most.")
    return found


def _labels(controls: Controls, chosen: Sequence[object]) -> tuple[int, ...] | None:
    """Returns the numbers of classes; None for all of them."""
    found = []
    for one in chosen if controls.labels else ():
        number = str(one).partition(":")[0]
        if not number.isdecimal() or int(number) >= len(controls.labels):
            raise UserError(f"{one!r} is no class of this model; they are 0 to {len(controls.labels) - 1}.")
        found.append(int(number))
    return tuple(found) or None


def _numbers(controls: Controls, values: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for key, number in controls.numbers.items():
        value = _number(number.label.partition(":")[0], values.get(key))
        if value is not None:
            found[key] = in_range(number, value)
    return found


def _choices(controls: Controls, values: Mapping[str, Any]) -> dict[str, str]:
    found = {key: str(values[key]) for key in controls.choices if values.get(key)}
    for key, word in found.items():
        if word not in controls.choices[key].words:
            raise UserError(f"{controls.choices[key].label} is {word!r}; choose one of the list.")
    return found


def _files(entry: str, value: object) -> tuple[str, ...]:
    found = tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),) if value else ()
    if len(found) > MOST_FILES:
        raise UserError(f"There are {len(found)} pictures ({entry}); {MOST_FILES} are the most.")
    return found


def _number(name: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # whatever a page sends
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is {str(value)[:50]!r}; give a number.") from error


def _whole(name: str, value: object, least: int, most: int) -> int:
    found = _number(name, value)
    if found is None or not math.isfinite(found) or found != int(found) or not least <= found <= most:
        raise UserError(f"{name} is {str(value)[:50]}; it is a whole number from {least} to {most}.")
    return int(found)
