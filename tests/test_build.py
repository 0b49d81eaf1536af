"""The factory: sections to objects, and a sentence for each mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import pytest
from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.config import defaults, section
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_method


@dataclasses.dataclass(frozen=True)
class Engine:
    power: float = 1.0
    image_shape: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Turbine(Engine):
    blades: int = 3


class _Prototype(Engine):
    """Not to be named."""


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
    trailers: Mapping[str, Engine] = dataclasses.field(default_factory=dict)


def make(given: dict | None = None, /, **keys: Any):
    return build({"name": "car", "wheels": 4, **keys}, Car, "config.method", **(given or {}))


def test_a_section_is_a_call_and_defaults_stay():
    assert make() == Car(wheels=4)
    assert make(weight=2, gears=[1, 2, 3], limit=None, open=True) == Car(4, weight=2.0, gears=(1, 2, 3), open=True)
    assert isinstance(make(weight=2).weight, float)
    assert build(ConfigDict({"name": "car", "wheels": 3}), Car, "config.method") == Car(3)


def test_nested_sections_are_built_beside_the_type_that_they_fill():
    car = make(engine={"name": "engine", "power": 3}, spare=ConfigDict({"name": "engine"}))
    assert car.engine == Engine(3.0) and car.spare == Engine()
    net = make(network={"name": "unet", "channels": 8, "channel_multipliers": [1, 2]}).network
    assert type(net).__name__ == "UNet" and net.channel_multipliers == (1, 2)
    assert make(extras={"a": 1}, anything={"b": 2}).anything == {"b": 2}


def test_a_bare_name_is_a_section_without_keys():
    assert make(engine="turbine").engine == Turbine() and make(spare="Engine").spare == Engine()
    assert type(make({"out_channels": 1}, network="unet").network).__name__ == "UNet"
    assert make(engine="test_build:Turbine").engine == Turbine()  # wherever it can be imported from


def test_a_mapping_of_a_type_takes_a_section_for_each_entry():
    trailers = {"name": "turbine", "second": ConfigDict({"name": "engine", "power": 3})}
    assert make({"power": 2.0}, trailers=trailers).trailers == {"name": Turbine(2.0), "second": Engine(3.0)}
    assert make(trailers={}).trailers == {}


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
    ({"engine": 3}, r"config\.method\.engine must be of type Engine, not 3"),
    ({"engine": "engin"}, r"config\.method\.engine\.name='engin' is unknown; did you mean 'engine'\?"),
    ({"engine": "car"}, r"config\.method\.engine\.name='car' is unknown; known are: engine, turbine"),
    ({"engine": "prototype"}, r"config\.method\.engine\.name='prototype' is unknown; known are: engine, turbine"),
    ({"engine": "test_build:Car"}, r"engine\.name='test_build:Car' is not an Engine \(test_build:Engine\); name a"),
    ({"engine": {"name": 3}}, r"config\.method\.engine\.name must be of type str, not 3"),
    ({"network": "ddpm"}, r"config\.method\.network\.name='ddpm' is unknown"),
    ({"trailers": {"a": "engin"}}, r"config\.method\.trailers\.a\.name='engin' is unknown; did you mean 'engine'"),
    ({"trailers": {"a": 3}}, r"config\.method\.trailers\.a must be of type Engine, not 3"),
    ({"trailers": {"a/b": {"name": "diesel"}}}, r"config\.method\.trailers has an entry called 'a/b'"),
    ({"trailers": 3}, r"config\.method\.trailers must be a section of entries, each of type Engine, not 3"),
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
        build({"wheels": 4}, Car, "config.method")
    with pytest.raises(UserError, match=r"config\.method is missing the key 'wheels', which 'car' needs"):
        build({"name": "car"}, Car, "config.method")


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
        ({"method.name": "base:Turn"}, r"config\.method\.name='base:Turn' is not a Method"),
        ({"sampler.name": "dimm"}, r"config\.sampler\.name='dimm' is unknown; did you mean 'ddim'\?"),
        ({"sampler.stpes": 3}, r"config\.sampler\.stpes does not exist; did you mean 'steps'\?"),
        ({"sampler": section()}, r"config\.sampler needs a 'name'"),
        ({"method.prediction_type": "x1"}, r"config\.method\.prediction_type\.name='x1' is unknown"),
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


@pytest.mark.parametrize(
    ("short", "name"),
    [("bf16", "bfloat16"), ("BF16", "bfloat16"), ("fp16", "float16"), ("half", "float16"), ("fp32", "float32"),
     ("f32", "float32"), ("torch.bfloat16", "bfloat16"), ("jnp.float32", "float32"), ("float16", "float16")],
)  # fmt: skip
def test_a_number_type_may_be_short(short, name):
    section = {"name": "unet", "out_channels": 1, "dtype": short}
    assert build(section, "network", "config.method.network").dtype == name


@pytest.mark.parametrize("name", ["int8", "float23", "float64", "double", "", "bfloat17", "f"])
def test_a_type_that_is_not_computed_with(name):
    with pytest.raises(UserError, match=r"^config\.method\.network\.dtype='\w*'.*float"):
        build({"name": "unet", "out_channels": 1, "dtype": name}, "network", "config.method.network")


class Failing(nn.Module):
    """A network whose construction fails."""

    def __post_init__(self):
        raise RuntimeError("no such device\nmore")


class Unfinished(Sampler):
    """A sampler without its methods."""


def test_a_class_of_the_users_own_that_raises_is_named():
    with pytest.raises(UserError, match=r"^config\.network='test_build:Failing': .*RuntimeError: no such device\.$"):
        build({"name": "test_build:Failing"}, "network", "config.network")


def test_an_incomplete_class_says_what_it_lacks():
    with pytest.raises(UserError, match="'test_build:Unfinished' is not complete: it does not define"):
        build({"name": "test_build:Unfinished"}, "sampler", "config.sampler")


def test_a_section_without_a_name_shows_its_keys():
    with pytest.raises(UserError, match=r"config\.sampler needs a 'name'\. It has 'nam'\."):
        build({"nam": "ddim"}, "sampler", "config.sampler")
