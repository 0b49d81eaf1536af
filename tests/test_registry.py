"""The one rule for names in configs: what is found, what is refused, and what each kind has."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from jaxgen import registry, renamed
from jaxgen.errors import UserError
from jaxgen.registry import KINDS, Kind, classes, config_name, find

ROOT = pathlib.Path(__file__).resolve().parents[1]

SOME = {  # of each kind, names and the classes that they mean
    "method": {"ddpm": "DDPM", "wgan_gp": "WGANGP", "kl_autoencoder": "KLAutoencoder"},
    "network": {"unet": "UNet", "text_encoder": "TextEncoder", "text_tower": "TextTower", "lpips": "LPIPS"},
    "sampler": {"ddim": "DDIM", "dpmpp_2m_sde": "DPMpp2MSDE", "euler_ancestral": "EulerAncestral", "edm": "EDM"},
    "schedule": {"rectified_flow": "RectifiedFlow", "sub_vp": "SubVP", "edm": "EDM"},
    "timestep_sampler": {"logit_normal": "LogitNormal", "uniform": "Uniform"},
    "guidance": {"classifier_free": "ClassifierFree", "compose": "Compose"},
    "gan_loss": {"non_saturating": "NonSaturating", "energy_margin": "EnergyMargin", "hinge": "Hinge"},
    "source": {"digits": "Digits", "caption_shapes": "CaptionShapes", "tfds": "TFDS"},
    "likelihood": {"bernoulli": "Bernoulli", "gaussian": "Gaussian", "optimal_gaussian": "OptimalGaussian"},
    "gan_sampler": {"truncated_normal": "TruncatedNormal"},
    "augmentation": {"diff_augment": "DiffAugment"},
}


@pytest.mark.parametrize(("kind", "name", "expected"), [(k, n, c) for k, row in SOME.items() for n, c in row.items()])
def test_a_name_finds_its_class_and_is_listed_with_it(kind, name, expected):
    found = find(kind, name, "x")
    assert found.__name__ == expected and issubclass(found, KINDS[kind].type())
    assert classes(kind)[name] is found


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_kind_is_found_by_the_names_in_its_list(kind):
    listed = classes(kind)
    assert list(listed) == sorted(listed)
    for name, cls in listed.items():
        assert find(kind, name, "x") is cls
        module, colon, word = name.rpartition(":")
        assert find(kind, module + colon + word.upper().replace("_", ""), "x") is cls
        assert find(kind, f"{cls.__module__}:{cls.__name__}", "x") is cls
        assert name in (config_name(cls), f"{cls.__module__.rpartition('.')[2]}:{cls.__name__}")
        assert cls is not KINDS[kind].type() and not cls.__name__.startswith("_")


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_name_gives_one_sentence_with_the_nearest(kind):
    for name in SOME.get(kind, {}):
        wrong = name[:-1] + "q"
        with pytest.raises(UserError) as error:
            find(kind, wrong, "config.a.name")
        said = str(error.value)
        assert said.startswith(f"config.a.name={wrong!r}") and name.rpartition(":")[2] in said and "\n" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_of_the_type_is_refused_before_it_is_called(kind):
    contract = KINDS[kind].contract
    for name in ("os:system", "subprocess:Popen", "builtins:dict", "jaxgen.errors:UserError", "math:pi"):
        with pytest.raises(UserError, match=rf"^x='{name}' is not an? \w+ \({contract}\); name a class that derives"):
            find(kind, name, "x")


def test_the_contract_is_none_of_its_kind():
    for name in ("method", "Method", "base:Method", "jaxgen.methods.base:Method"):
        with pytest.raises(UserError, match=f"x='{name}' is the type that every method derives from; "):
            find("method", name, "x")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("method", "dppm", r"x='dppm' is unknown; did you mean 'ddpm'\?"),
        ("method", "ddpm:DDDPM", r"x='ddpm:DDDPM': jaxgen\.methods\.diffusion\.ddpm defines no 'DDDPM'; .*'DDPM'\?"),
        ("method", "nowhere.at_all:Thing", r"x='nowhere\.at_all:Thing' is unknown: there is no module 'nowhere'"),
        ("method", "json", r"x='json' is unknown; "),  # a module, which is not even imported
        ("method", "turn", r"x='turn' is not a Method \(jaxgen\.methods\.base:Method\)"),
        ("method", ":Thing", r"x=':Thing' is unknown; write package\.module:Class\."),
        ("method", ".relative:Thing", r"x='\.relative:Thing' is unknown; write package\.module:Class\."),
        ("method", "ddpm:", r"x='ddpm:' names no class behind the colon; write package\.module:Class"),
        ("network", "unet:_", r"x='unet:_' names no class behind the colon"),
        ("method", "", r"x='' is unknown; "),
        ("sampler", "posterior", r"x='posterior' is unknown; .*ddpm"),
        ("sampler", "runge_kutta", r"x='runge_kutta' is unknown; "),  # in a private module
        ("sampler", "solver_coefficients", r"x='solver_coefficients' is not a Sampler"),
        ("schedule", "ddim", r"x='ddim' is not a Schedule"),
        ("network", "block", r"x='block' is unknown; "),  # a part of others
        ("network", "gan_network", r"x='gan_network' is unknown; "),  # a base of others
    ],
)
def test_a_name_that_means_nothing_of_the_kind_is_told_so(kind, name, message):
    with pytest.raises(UserError, match=message) as error:
        find(kind, name, "x")
    assert "\n" not in str(error.value)


def test_where_several_classes_have_a_name_the_module_of_that_name_decides():
    from jaxgen.networks.autoencoder_kl import Encoder as Other
    from jaxgen.networks.encoder import Encoder

    assert find("network", "encoder", "x") is Encoder
    assert find("network", "autoencoder_kl:encoder", "x") is Other
    assert find("network", "gans.dcgan:DCGANGenerator", "x") is find("network", "dcgan_generator", "x")


def test_a_name_that_two_classes_have_is_asked_for_with_the_module(monkeypatch):
    monkeypatch.setitem(KINDS, "thing", Kind("thing", "builtins:object", ("jaxgen.diffusion", "jaxgen.methods")))
    with pytest.raises(UserError, match=r"^x='ddpm' is the name of several classes; write .*diffusion\.ddpm:DDPM"):
        find("thing", "ddpm", "x")
    with pytest.raises(UserError, match=r"^x='ddpm:DDPM' is the name of several .*samplers\.ddpm:DDPM or "):
        find("thing", "ddpm:DDPM", "x")
    assert find("thing", "samplers.ddpm:DDPM", "x") is find("sampler", "ddpm", "x")


def test_a_narrower_type_than_the_contract_is_asked_for():
    from jaxgen.methods.gans.gan import GAN

    assert find("method", "wgan", "x", (GAN,)).__name__ == "WGAN"
    with pytest.raises(UserError, match=r"x='ddpm' is not a GAN \(jaxgen\.methods\.gans\.gan:GAN\)"):
        find("method", "ddpm", "x", (GAN,))


# ------------------------------------------------------------------ classes of other people


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable folder to write modules into."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("strange_")]:
        del sys.modules[name]


def test_a_class_anywhere_in_python_may_be_named(package):
    (package / "strange_methods.py").write_text(
        "from jaxgen.methods.base import Method\nclass MyOwn(Method):\n    pass\nclass Other:\n    pass\n"
    )
    assert find("method", "strange_methods:MyOwn", "x").__name__ == "MyOwn"
    assert find("method", "strange_methods:my_own", "x").__name__ == "MyOwn"
    with pytest.raises(UserError, match=r"x='strange_methods:Other' is not a Method"):
        find("method", "strange_methods:Other", "x")
    with pytest.raises(UserError, match=r"x='strange_methods:MyOwm': strange_methods defines no 'MyOwm'; .*'MyOwn'"):
        find("method", "strange_methods:MyOwm", "x")


def test_a_module_of_ones_own_may_be_called_as_one_of_a_room(package):
    (package / "penalties.py").write_text("from jaxgen.adversarial.losses import Hinge\nclass Mine(Hinge):\n    pass\n")
    assert find("gan_loss", "penalties:Mine", "x").__module__ == "penalties"
    assert find("gan_loss", "losses:Hinge", "x").__module__ == "jaxgen.adversarial.losses"
    del sys.modules["penalties"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("from jaxgen.methods.base import Methode", "ImportError: cannot import name 'Methode'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('no\\nsuch')", "ValueError: no"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import strange_parent.child", "ModuleNotFoundError: No module named 'strange_parent'"),
    ],
)
def test_a_module_that_cannot_be_imported_gives_one_sentence(package, text, reason):
    (package / "strange_failing.py").write_text(text)
    for name in ("strange_failing:Mine", "strange_package.inner:Mine"):
        (package / "strange_package").mkdir(exist_ok=True)
        (package / "strange_package" / "__init__.py").write_text(text)
        with pytest.raises(UserError) as error:
            find("method", name, "config.method.name")
        said = str(error.value)
        assert said.startswith(f"config.method.name={name!r}: importing {name.partition(':')[0]} failed with {reason}")
        assert "\n" not in said


# ------------------------------------------------------------------ old names, and the cost of a mistake


def test_what_was_renamed_is_called_by_its_new_name(monkeypatch):
    old = {"grid": "spacing", "latents": "z_dim", "times.noise": "times.spread", "ddpn": "ddpm"}
    monkeypatch.setattr(renamed, "RENAMED", old)
    for section, key, message in [
        ("config.sampler", "grid", "config.sampler.grid does not exist: it is called config.sampler.spacing now."),
        ("config.a.times", "noise", "config.a.times.noise does not exist: it is called config.a.times.spread now."),
        ("config.sampler", "noise", "config.sampler.noise does not exist; known are: other, spacing."),
        ("config.sampler", "latents", "config.sampler.latents does not exist; known are: other, spacing."),
    ]:
        assert str(renamed.unknown_key(section, key, ["other", "spacing"])) == message
    with pytest.raises(UserError, match=r"^x='ddpn' does not exist: it is called 'ddpm' now\.$"):
        find("method", "ddpn", "x")


def test_a_name_with_a_module_that_was_renamed_is_called_by_its_new_name():
    old = {name: now for name, now in renamed.RENAMED.items() if ":" in name}
    assert old
    for name, now in old.items():
        kind = next(kind for kind in KINDS if now in classes(kind))
        with pytest.raises(UserError, match=f"^x='{name}' does not exist: it is called '{now}' now"):
            find(kind, name, "x")


def test_a_misspelt_name_does_not_wait_for_jax():
    code = """if True:
        import sys
        from jaxgen.errors import UserError
        from jaxgen.registry import KINDS, find
        for kind in KINDS:
            try:
                find(kind, "misspelt", "x")
            except UserError as error:
                assert "is unknown" in str(error), error
        print(*(m for m in ("jax", "flax", "optax", "grain") if m in sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_page_of_configs_has_every_kind():
    page = (ROOT / "docs" / "config.md").read_text().partition("## Names")[2].partition("\n## ")[0]
    for kind, of in KINDS.items():
        assert f"`{kind}`" in page and of.contract.rpartition(":")[2] in page, kind


def test_every_class_says_in_its_first_line_what_it_is():
    for kind in KINDS:
        for name, cls in classes(kind).items():
            assert vars(cls).get("__doc__"), f"{kind} {name} has no docstring, whose first line the list shows"


def test_kinds_are_told_apart_by_their_contracts():
    from jaxgen.diffusion.samplers.ddim import DDIM
    from jaxgen.networks.unet import UNet

    assert registry.kind_of((DDIM,)) == "sampler" and registry.kind_of((UNet,)) == "network"
    assert registry.kind_of((dict,)) is None


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="'samplers' is no kind of class; did you mean 'sampler'"):
        registry.classes("samplers")
