"""What config keys and names were called before, so that an old config is answered with the new word."""

from __future__ import annotations

from collections.abc import Iterable

from jaxgen.errors import UserError, nearest

# {old: new}. An entry is a key's last words ("critic_steps", "sampler.grid", without the leading `config.`) or a name
# that a config gave to something ("judges:inception"). The longest entry that fits counts; one whose new word is no key
# of the section does not.
RENAMED: dict[str, str] = {
    "train.max_bad_steps": "train.max_nonfinite_updates",
    "sampler.grid": "sampler.spacing",
    "sampler.recurrence": "sampler.self_recurrence",
    "times": "timesteps",
    "prediction": "prediction_type",
    "critic": "discriminator",
    "critic_steps": "discriminator_steps",
    "latents": "z_dim",
    "dcgan:Generator": "dcgan_generator",
    "dcgan:Discriminator": "dcgan_discriminator",
    "mlp:Generator": "mlp_generator",
    "mlp:Discriminator": "mlp_discriminator",
    "resnet_gan:Generator": "resnet_generator",
    "resnet_gan:Discriminator": "resnet_discriminator",
}


def unknown_key(section: str, key: str, known: Iterable[str]) -> UserError:
    """The error for `<section>.<key>`: what it is called now, or else the nearest of the known keys.

    Args:
      section: the path of the section that has the key, such as `config.sampler`.
    """
    words, known = f"{section}.{key}".split("."), list(known)
    for start in range(len(words)):
        now = RENAMED.get(".".join(words[start:]))
        if now is not None and (now.rpartition(".")[2] in known or start < len(words) - 1):
            whole = ".".join([*words[:start], now])
            return UserError(f"{section}.{key} does not exist: it is called {whole} now.")
    return UserError(f"{section}.{key} does not exist; {nearest(key, known)}")


def unknown_name(path: str, name: str, known: Iterable[str]) -> UserError:
    """The error for `<path>=<name>`: what it is called now, or else the nearest of the known names."""
    if name in RENAMED:
        return UserError(f"{path}={name!r} does not exist: it is called {RENAMED[name]!r} now.")
    return UserError(f"{path}={name!r} is unknown; {nearest(name, known)}")
