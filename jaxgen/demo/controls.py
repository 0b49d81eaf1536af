"""Says which controls a model has: what of a request it reads, from its method and its config."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen import registry
from jaxgen.config import section
from jaxgen.demo.watch import watchable
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.editing.edited import editable
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.diffusion.stable_diffusion import StableDiffusion
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.slots import Slot, begun_slots, slots_of

MOST_STEPS = 1000
MOST_IMAGES = 64
# Options of samplers that are numbers: {name: (what the page calls it, whether it is whole, the least, the most)}.
OPTIONS = {
    "steps": ("Steps", True, 1, MOST_STEPS),
    "truncation": ("Truncation (psi): 1 leaves styles as they are, 0 is the mean image", False, 0, 4),
    "threshold": ("Truncation: the most standard deviations of the noise", False, 0.01, 10),
    "start": ("Scales that are kept as they are in the picture", True, 0, 64),
    "temperature": ("Temperature", False, 0, 10),
    "top_k": ("Top k: the tokens that are drawn from; 0 is all", True, 0, 10**6),
}
SCALE = ("Guidance scale", False, -100, 100)


@dataclasses.dataclass(frozen=True)
class Number:
    """Holds a number that can be chosen: a key of the config."""

    label: str
    value: float | None  # that of the config; None where it sets none
    whole: bool
    least: float
    most: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """Holds a key of the config that takes one of some words."""

    label: str
    value: str
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Holds a picture that the model reads. A set is several pictures."""

    label: str
    several: bool = False


@dataclasses.dataclass(frozen=True)
class Controls:
    """Holds what can be chosen of a request to a model; what it has no use for is empty.

    Attributes:
      labels: the names of the classes, in the order of their numbers.
      prompt: "needed", "optional" (held-out texts take its place), or "" for a model that reads no text.
      negative_prompt: whether guidance leads away from a text.
      numbers: `{key of the config: number}`, such as "sampler.steps".
      choices: `{key of the config: choice}`, such as "sampler.name".
      pictures: `{entry, as --image and --input name it: picture}`.
      strength: whether the model can begin with a picture, and so change a share of it.
      degrade: whether the run's own corruptions can make of a clean picture what the model reads.
      panels: whether there are panels, such as the way from noise to images.
      watch: whether states on the way can be shown while a sampler runs.
      quiz: whether images can be shown beside real ones.
      plane: whether images can be drawn at places of a plane of latents.
    """

    labels: tuple[str, ...] = ()
    prompt: str = ""
    negative_prompt: bool = False
    numbers: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, Choice] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    strength: bool = False
    degrade: bool = False
    panels: bool = False
    watch: bool = False
    quiz: bool = False
    plane: bool = False


def controls_of(config: ConfigDict, trained: TrainedModel) -> Controls:
    """Returns the controls of a model.

    Raises:
      UserError: it draws nothing that can be seen.
    """
    generator = trained.generator
    method = generator.method
    if not method.has_sampler or not generator.output.pictured:
        what = generator.output.plural if method.has_sampler else "nothing"
        raise UserError(
            f"The method {config.method.name!r} draws {what}, of which a page has nothing to show: use --mode=sample "
            "or --mode=evaluate."
        )
    read = set(method.conditions) - set(method.ignored)
    numbers, choices = sampler_controls(config, method)
    pictures, begins = _pictures(trained)
    guidance = _guidance(method)
    prompt = ("needed" if isinstance(method, StableDiffusion) else "optional") if "tokens" in read else ""
    return Controls(
        labels=_class_names(config, trained) if "label" in read else (),
        prompt=prompt,
        negative_prompt=bool(prompt) and guidance is not None and "null" in guidance.reads,
        numbers=numbers,
        choices=choices,
        pictures=pictures,
        strength=begins,
        degrade=any(name in generator.held_out.made for name in method.conditions),
        panels=type(method).panels is not Method.panels,
        watch=watchable(method),
        quiz=method.samples_images and config.data.source != "none",
        plane=method.has_latent_plane,
    )


def sampler_controls(config: ConfigDict, method: Any) -> tuple[dict[str, Number], dict[str, Choice]]:
    """Returns what `config.sampler` and `config.guidance` let a user choose for a method."""
    method = getattr(method, "method", method)  # of one with grafts
    numbers: dict[str, Number] = {}
    choices: dict[str, Choice] = {}
    if config.method.name == "cascade":  # its samplers are those of other runs
        return numbers, choices
    sampler = getattr(method, "sampler", None)
    if isinstance(sampler, Sampler):
        names = tuple(registry.names("sampler"))
        name = config.sampler.get("name") or registry.config_name(type(sampler))
        choices["sampler.name"] = Choice("Sampler", name, names if name in names else (name, *names))
    options = {field.name for field in dataclasses.fields(sampler)} if dataclasses.is_dataclass(sampler) else set()
    for option, (label, whole, least, most) in OPTIONS.items():
        if option in options:
            numbers[f"sampler.{option}"] = Number(label, getattr(sampler, option), whole, least, most)
    for option in options:
        hint = typing.get_type_hints(type(sampler)).get(option)
        if not isinstance(sampler, Sampler) and typing.get_origin(hint) is typing.Literal:
            words = tuple(map(str, typing.get_args(hint)))
            choices[f"sampler.{option}"] = Choice(
                option.replace("_", " ").capitalize(), str(getattr(sampler, option)), words
            )
    scale = getattr(_guidance(method), "scale", None)
    if scale is not None:
        key = "sampler.guidance_scale" if config.sampler.get("guidance_scale") is not None else "guidance.scale"
        numbers[key] = Number(SCALE[0], scale, *SCALE[1:])
    return numbers, choices


def chosen_config(config: ConfigDict, numbers: Mapping[str, float], choices: Mapping[str, str]) -> ConfigDict:
    """Returns a config with the keys that a request sets. Another sampler keeps the options that it has, too.

    Raises:
      UserError: the sampler does not exist.
    """
    made = ConfigDict(config.to_dict(), type_safe=False)
    name = choices.get("sampler.name")
    if name and name != (config.sampler.get("name") or name):
        other = {field.name for field in dataclasses.fields(registry.find("sampler", name, "config.sampler.name"))}
        kept = {key: value for key, value in config.sampler.items() if key in other or key == "guidance_scale"}
        made.sampler = section(**{**kept, "name": name})
    for key, value in {**choices, **numbers}.items():
        of, option = key.split(".")
        if value != made[of].get(option) and not _is_default(config, key, value):
            made[of][option] = value
    return made


def _is_default(config: ConfigDict, key: str, value: object) -> bool:
    """Returns whether a config that leaves a name out is given the name of its default, which says nothing."""
    return key == "sampler.name" and config.sampler.get("name") is None and bool(value)


def _guidance(method: Any) -> Any:
    return getattr(getattr(method, "method", method), "guidance", None)


def _class_names(config: ConfigDict, trained: TrainedModel) -> tuple[str, ...]:
    """Returns the classes' names where the open data know them, and else their numbers."""
    count = int(config.data.num_classes)
    source = trained.generator.held_out.sources.get(config.data.eval_split)
    names = tuple(map(str, getattr(source, "class_names", ())))
    numbers = map(str, range(count))
    if len(names) != count:
        return tuple(numbers)
    return tuple(number if name == number else f"{number}: {name}" for number, name in zip(numbers, names, strict=True))


def _pictures(trained: TrainedModel) -> tuple[dict[str, Picture], bool]:
    """Returns the pictures that a model reads or begins with, and whether it begins with one."""
    slots, diffusion = slots_of(trained), editable(trained.generator.method)
    images = [name for name, slot in slots.items() if slot.kind in ("picture", "set")]
    sets = [name for name in images if slots[name].kind == "set"]
    own = next((name for name in ("image", "condition", *sets) if name in images), "")  # as --image finds it
    held_out = trained.generator.config.data.source != "none"
    found = {("image" if name == own else name): _told(name, slot, held_out) for name, slot in slots.items()}
    if own or diffusion is None:
        return found, False
    for name, slot in begun_slots(diffusion.image_shape).items():
        what = "Picture to begin with" if slot.kind == "picture" else "Mask: white may change, black is kept"
        found.setdefault(name, Picture(what))
    return found, "image" in found


def _told(name: str, slot: Slot, held_out: bool) -> Picture:
    sides = slot.shape[-3:-1] if slot.kind in ("picture", "set") else slot.shape
    what = {
        "picture": "picture",
        "set": "pictures, which are one set",
        "mask": "mask: white is drawn, black is kept",
        "classes": f"layout: its numbers are classes{f', 0 to {slot.classes - 1}' if slot.classes else ''}",
    }[slot.kind]
    empty = "; empty: held-out ones" if held_out else ""
    label = f"{name.replace('_', ' ').capitalize()} ({what}; {sides[1]}x{sides[0]}{empty})"
    return Picture(label, slot.kind == "set")


def in_range(number: Number, value: float) -> float:
    """Returns a number as its key takes it.

    Raises:
      UserError: it is not finite, out of its range, or not whole where it has to be.
    """
    name = number.label.partition(":")[0]
    if not math.isfinite(value) or not number.least <= value <= number.most:
        raise UserError(f"{name} is {value:g}; it is a number from {number.least:g} to {number.most:g}.")
    if number.whole and value != int(value):
        raise UserError(f"{name} is {value:g}; it is a whole number.")
    return int(value) if number.whole else float(value)
