"""The factory: sections to objects, and a sentence for each mistake."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import Any, Literal

import flax.linen as nn
import pytest
from ml_collections import ConfigDict

from jaxgen.build import build, lookup
from jaxgen.config import defaults, section
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_method

ROOM = "factory_room"


@dataclasses.dataclass(frozen=True)
class Engine:
    power: float = 1.0
    image_shape: tuple[int, int, int] | None = None


def engine(power: float = 1.0, image_shape: tuple[int, int, int] | None = None) -> Engine:
    return Engine(power, image_shape)


@dataclasses.dataclass(frozen=True)
class Car:
    """Every kind of field that a section may fill."""

    wheels: int
    engine: Engine = Engine()
    spare: Engine | None = None
    colour: Literal["red", "green"] = "red"
    gears: tuple[int, ...] = (1, 2)
    size: tuple[float, str] = (1.0, "m")
    weight: float = 1.0
    limit: float | None = None
    open: bool = False
    extras: dict = dataclasses.field(default_factory=dict)
    anything: Any = None
    network: nn.Module | None = None
    image_shape: tuple[int, int, int] = (0, 0, 0)


@pytest.fixture(autouse=True)
def factory_room(monkeypatch):
    """A module that is a room: `car` and `engine` are its own, `_hidden` too, `cast` is imported."""
    module = types.ModuleType(ROOM)
    module.__dict__.update(Car=Car, car=Car, Engine=Engine, engine=engine, _hidden=engine, cast=typing.cast)
    module.__dict__.update({name: globals()[name] for name in ("Any", "Literal", "dataclasses", "nn")})
    for member in (Car, Engine, engine):
        monkeypatch.setattr(member, "__module__", ROOM)
    monkeypatch.setitem(sys.modules, ROOM, module)


def make(given: dict | None = None, /, **keys: Any):
    return build({"name": "car", "wheels": 4, **keys}, ROOM, "config.method", **(given or {}))


def test_a_section_is_a_call_and_defaults_stay():
    assert make() == Car(wheels=4)
    assert make(weight=2, gears=[1, 2, 3], limit=None, open=True) == Car(4, weight=2.0, gears=(1, 2, 3), open=True)
    assert isinstance(make(weight=2).weight, float)
    assert build(ConfigDict({"name": "car", "wheels": 3}), ROOM, "config.method") == Car(3)


def test_nested_sections_are_built_beside_the_type_that_they_fill():
    car = make(engine={"name": "engine", "power": 3}, spare=ConfigDict({"name": "engine"}))
    assert car.engine == Engine(3.0) and car.spare == Engine()
    net = make(network={"name": "unet", "channels": 8, "channel_multipliers": [1, 2]}).network
    assert type(net).__name__ == "UNet" and net.channel_multipliers == (1, 2)
    assert make(extras={"a": 1}, anything={"b": 2}).anything == {"b": 2}


def test_what_the_caller_gives_fills_silent_sections_at_every_depth():
    car = make({"image_shape": (8, 8, 1), "unknown": 3}, engine={"name": "engine"})
    assert car.image_shape == car.engine.image_shape == (8, 8, 1)
    assert make({"image_shape": (8, 8, 1)}, image_shape=(1, 1, 1)).image_shape == (1, 1, 1)


WRONG = [
    ({"wheel": 3}, r"config\.method\.wheel does not exist; did you mean 'wheels'\?"),
    ({"zzzz": 3}, r"config\.method\.zzzz does not exist; known are: .*colour.*wheels"),
    ({"wheels": "four"}, r"config\.method\.wheels must be of type int, not 'four'"),
    ({"wheels": True}, r"config\.method\.wheels must be of type int, not True"),
    ({"wheels": 4.0}, r"config\.method\.wheels must be of type int, not 4\.0"),
    ({"weight": "heavy"}, r"config\.method\.weight must be of type float"),
    ({"open": 1}, r"config\.method\.open must be of type bool, not 1"),
    ({"gears": 3}, r"config\.method\.gears must be of type tuple\[int, \.\.\.\], not 3"),
    ({"gears": (1, "r")}, r"config\.method\.gears must be of type tuple"),
    ({"size": (1.0,)}, r"config\.method\.size must be of type tuple\[float, str\]"),
    ({"limit": "no"}, r"config\.method\.limit must be of type float \| None, not 'no'"),
    ({"colour": "gren"}, r"config\.method\.colour='gren' is unknown; did you mean 'green'\?"),
    ({"engine": "engine"}, r"config\.method\.engine must be of type Engine, not 'engine'"),
    ({"engine": {"power": 1}}, r"config\.method\.engine needs a 'name'"),
    ({"engine": {"name": "engin"}}, r"config\.method\.engine\.name='engin' is unknown; did you mean 'engine'\?"),
    ({"engine": {"name": "engine", "powr": 1}}, r"config\.method\.engine\.powr does not exist; did you mean 'power'\?"),
    ({"network": {"name": "unett"}}, r"config\.method\.network\.name='unett' is unknown; did you mean 'unet'\?"),
    ({"network": {"name": "unet", "chanels": 1}}, r"config\.method\.network\.chanels does not exist.*'channels'"),
    ({"weight": {"name": "engine"}}, r"config\.method\.weight"),
    ({"anything": {"name": "engine"}}, r"config\.method\.anything takes a plain value, not a section"),
]


@pytest.mark.parametrize(("keys", "message"), WRONG, ids=[str(keys)[:30] for keys, _ in WRONG])
def test_a_mistake_is_named(keys, message):
    with pytest.raises(UserError, match=message):
        make(**keys)


def test_a_name_is_needed_and_a_key_without_default_too():
    with pytest.raises(UserError, match=r"config\.method needs a 'name'"):
        build({"wheels": 4}, ROOM, "config.method")
    with pytest.raises(UserError, match=r"config\.method is missing the key 'wheels', which 'car' needs"):
        build({"name": "car"}, ROOM, "config.method")


def test_names_are_modules_members_or_paths():
    from jaxgen.methods.diffusion.ddpm import DDPM
    from jaxgen.networks.unet import ResBlock

    assert lookup("ddpm", "jaxgen.methods", "x") is DDPM
    assert lookup("unet:ResBlock", "jaxgen.networks", "x") is ResBlock
    assert lookup("jaxgen.networks.unet:res_block", "jaxgen.methods", "x") is ResBlock
    assert lookup("tiny_methods:TwoPlayers", "jaxgen.methods", "x").__name__ == "TwoPlayers"


@pytest.mark.parametrize(
    ("name", "room", "message"),
    [
        ("dppm", "jaxgen.methods", r"x='dppm' is unknown; did you mean 'ddpm'\?"),
        ("ddpm:DDDPM", "jaxgen.methods", r"x='ddpm:DDDPM': jaxgen\.methods\.diffusion\.ddpm defines no 'DDDPM'"),
        ("nowhere.at_all:Thing", "jaxgen.methods", r"x='nowhere\.at_all:Thing' is unknown"),
        ("json", "jaxgen.methods", r"x='json' is unknown"),
        ("_hidden", ROOM, r"x='_hidden' is unknown"),
        ("cast", ROOM, r"x='cast' is unknown"),  # imported there, not its own
        ("posterior", "jaxgen.diffusion.samplers", r"x='posterior' is unknown; .*ddpm"),
    ],
)
def test_a_name_that_is_not_there_is_unknown(name, room, message):
    with pytest.raises(UserError, match=message):
        lookup(name, room, "x")


# ------------------------------------------------------------------ a config's method


def ddpm(**network: Any) -> ConfigDict:
    config = defaults()
    config.method = section(name="ddpm", network=section(name="unet", **network), schedule=section(name="cosine"))
    config.sampler = section(name="ddim", steps=3)
    config.data.update(source="digits", resolution=(8, 12), channels=2, num_classes=5)
    return config


def test_a_method_knows_the_shape_and_classes_of_its_data():
    method = make_method(ddpm())
    assert method.image_shape == (8, 12, 2) and method.num_classes == method.network.num_classes == 5
    assert method.sampler.steps == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method.name": "classifier"}, r"config\.sampler is set, but the method 'classifier' takes no sampler"),
        ({"method.name": "base:Turn"}, r"config\.sampler is set|is not a method"),
        ({"sampler.name": "dimm"}, r"config\.sampler\.name='dimm' is unknown; did you mean 'ddim'\?"),
        ({"sampler.stpes": 3}, r"config\.sampler\.stpes does not exist; did you mean 'steps'\?"),
        ({"sampler": section()}, r"config\.sampler needs a 'name'"),
        ({"method.prediction_type": "x1"}, r"config\.method\.prediction_type='x1' is unknown"),
        ({"method.schedule.name": "cosin"}, r"method\.schedule\.name='cosin' is unknown; did you mean 'cosine'"),
        ({"method.networks": 1}, r"config\.method\.networks does not exist; did you mean 'network'\?"),
    ],
)
def test_a_mistake_in_a_method_is_named(change, message):
    config = ddpm()
    for key, value in change.items():
        *path, last = key.split(".")
        inner = config
        for part in path:
            inner = inner[part]
        inner[last] = value
    with pytest.raises(UserError, match=message):
        make_method(config)
