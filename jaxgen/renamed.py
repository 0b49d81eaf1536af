"""Knows former names of config keys and classes, so that the error for an old config can give the new name."""

from __future__ import annotations

from collections.abc import Iterable

from jaxgen.errors import UserError, nearest

# {old: new}. An entry is the end of a key's path ("critic_steps", "sampler.grid", without the leading `config.`) or a
# class's name in a config ("dcgan:Generator"). The longest entry that matches is used, and only where the section has
# a key of the new name. Where one name became several, they stand with commas between them.
RENAMED: dict[str, str] = {
    "train.max_bad_steps": "train.max_nonfinite_updates",
    "sampler.grid": "sampler.spacing",
    "sampler.recurrence": "sampler.self_recurrence",
    "times": "timesteps",
    "prediction": "prediction_type",
    "critic": "discriminator",
    "critic_steps": "discriminator_steps",
    "latents": "z_dim",
    "method.scaling": "method.scale",
    "judge": "class_entropy, confidence, label_accuracy",
    "prdc": "precision, recall, density, coverage",
    "dcgan:Generator": "dcgan_generator",
    "dcgan:Discriminator": "dcgan_discriminator",
    "mlp:Generator": "mlp_generator",
    "mlp:Discriminator": "mlp_discriminator",
    "resnet_gan:Generator": "resnet_generator",
    "resnet_gan:Discriminator": "resnet_discriminator",
}


def unknown_key(section: str, key: str, known: Iterable[str]) -> UserError:
    """Returns the error for `<section>.<key>`, with its new name or else the most similar of the known keys.

    Args:
      section: the path of the section, such as `config.sampler`.
      key: the key that does not exist there.
      known: the section's keys.
    """
    words, known = f"{section}.{key}".split("."), list(known)
    for start in range(len(words)):
        now = RENAMED.get(".".join(words[start:]))
        if now is not None and (now.rpartition(".")[2] in known or start < len(words) - 1):
            whole = ".".join([*words[:start], now])
            return UserError(f"{section}.{key} does not exist: it is called {whole} now.")
    return UserError(f"{section}.{key} does not exist; {nearest(key, known)}")


def unknown_name(path: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for `<path>=<name>`, with its new name or else the most similar of the known names."""
    if name in RENAMED:
        now = [repr(each) for each in RENAMED[name].split(", ")]
        called = "it is called" if len(now) == 1 else "its parts are called"
        return UserError(f"{path}={name!r} does not exist: {called} {', '.join(now)} now.")
    return UserError(f"{path}={name!r} is unknown; {nearest(name, known)}")
