"""Makes a run of published weights of StyleGAN2: a folder that every command takes as --workdir.

    python -m jaxgen.sampling.publishing.stylegan FILE OUT
    python main.py --workdir=OUT --mode=sample --num=16 --config.sampler.truncation=0.7 --out=DIR

FILE is a `.pkl` file of StyleGAN2-ADA for PyTorch, of which nothing is run, or a folder with `generator.safetensors`
and `discriminator.safetensors`, as `python -m jaxgen.sampling.export` writes it of a run. Sizes, depths and classes are
those of the arrays. The folder is a published run: it is sampled, edited and evaluated as it is, and
`config.init_from.generator=OUT` and `config.init_from.discriminator=OUT` begin a training with it.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import defaults, section, to_json
from jaxgen.entry_point import Parser, a_path, count, entry_point
from jaxgen.errors import UserError
from jaxgen.files import check_free, write_bytes
from jaxgen.host import use_compilation_cache, use_cpu_cores

PARTS = {"generator": "G_ema", "discriminator": "D"}  # groups here, and what a published file calls them
GROUP = 4  # images whose deviation the discriminator sees, unless the authors' config says otherwise
Arrays = Mapping[str, np.ndarray]


def read_networks(path: epath.PathLike) -> dict[str, Arrays]:
    """Returns `{group: arrays by their published names}` of a file or a folder; nothing in it is run.

    Raises:
      UserError: it cannot be read, or lacks a network.
    """
    from jaxgen.interop.diffusers_files import open_weights
    from jaxgen.interop.stylegan.published_file import read

    folder = pathlib.Path(path)
    if folder.is_dir():
        lost = [f"{group}.safetensors" for group in PARTS if not (folder / f"{group}.safetensors").is_file()]
        if lost:
            raise UserError(f"{folder} has no {lost[0]}: a run of stylegan2 has a generator and a discriminator.")
        return {group: open_weights(path, group) for group in PARTS}
    return {group: read(path, name) for group, name in PARTS.items()}


def published_config(networks: Mapping[str, Arrays], group: int = GROUP) -> ConfigDict:
    """Returns the config whose networks have the shapes of arrays by their published names.

    Args:
      networks: `{"generator": arrays, "discriminator": arrays}`.
      group: images whose deviation the discriminator sees, which no array tells.

    Raises:
      UserError: the arrays are not those of a StyleGAN2 whose generator adds up images, as configuration F does.
    """
    found, judge = networks["generator"], networks["discriminator"]
    side = max((int(name[1]) for name in _matches(r"synthesis\.b(\d+)\.torgb\.weight", found)), default=0)
    if side < 4 or side & (side - 1):
        raise UserError(
            f"The generator's largest images are of {side} pixels by the names of its arrays; a StyleGAN2 whose "
            "generator adds up images of all sizes has 4, 8, 16 or any further power of two."
        )
    top = f"synthesis.b{side}.torgb.weight"
    embedded, classes = _shape(found, "mapping.embed.weight", 2) if "mapping.embed.weight" in found else (0, 0)
    w_dim, inputs = _shape(found, "mapping.fc0.weight", 2)
    config = defaults()
    config.method = section(
        name="stylegan2",
        generator=section(
            name="style2_generator",
            z_dim=inputs - embedded,
            w_dim=w_dim,
            depth=len(_matches(r"mapping\.fc\d+\.weight", found)),
            channels=_shape(found, top, 4)[1],
            max_channels=_shape(found, "synthesis.b4.torgb.weight", 4)[1],
            conditioning="embedding" if classes else "none",
        ),
        discriminator=section(
            name="style2_discriminator",
            channels=_shape(judge, f"b{side}.fromrgb.weight", 4)[0],
            max_channels=_shape(judge, "b4.conv.weight", 4)[0],
            conditioning="projection" if classes else "none",
            residual=f"b{side}.skip.weight" in judge,
            group=group,
        ),
    )
    if classes:
        config.method.discriminator.depth = len(_matches(r"mapping\.fc\d+\.weight", judge))
    config.data.update(source="none", resolution=side, channels=_shape(found, top, 4)[0], num_classes=classes)
    config.train.total_images = 25_000_000  # the authors'; a published run is not trained on
    config.evaluate.batch_size = 16
    return config


def write_run(networks: Mapping[str, Arrays], config: ConfigDict, out: epath.PathLike, command: str) -> list[str]:
    """Writes a published run of arrays by their published names; returns the names of its files.

    Args:
      networks: `{"generator": arrays, "discriminator": arrays}`.
      config: as `published_config` gives it.
      out: the folder; it must be empty or missing.
      command: what is recorded as the command.

    Raises:
      UserError: an array does not fit, or the folder has files.
    """
    import jax
    import jax.numpy as jnp

    from jaxgen.config import image_shape
    from jaxgen.files import write_json
    from jaxgen.interop.stylegan.layout import variables_from
    from jaxgen.runs.hub.published_run import PublishedRecord, write_weights
    from jaxgen.runs.setup import make_method

    check_free(out, "OUT")
    folder = pathlib.Path(out)
    method: Any = make_method(config)
    shape, size = image_shape(config), config.train.batch_size
    found = {group: dict(variables_from(networks[group], getattr(method, group), shape)) for group in PARTS}
    batch = {"image": jnp.zeros((2, *shape))} | ({"label": jnp.zeros(2, jnp.int32)} if config.data.num_classes else {})
    begin = jax.jit(lambda key: method.init(key, batch, method.stages[0][1], {}, {}, {})[1])
    params = {group: variables.pop("params") for group, variables in found.items()}
    memory = {**begin(jax.random.key(0)), **{group: variables for group, variables in found.items() if variables}}
    example: dict[str, Any] = {"image": ((size, *shape), "uint8")}
    example |= {"label": ((size,), "int32")} if config.data.num_classes else {}
    files = write_weights(folder, PublishedRecord(0, 0, method.stages[0][1], example), params, memory)
    write_bytes(folder / "config.json", to_json(config).encode())
    counts = {group: sum(int(x.size) for x in jax.tree.leaves(tree)) for group, tree in params.items()}
    write_json(folder / "run.json", {"method": "stylegan2", "command": command, "parameters": counts})
    return [*files, "config.json", "run.json"]


def _matches(pattern: str, arrays: Arrays) -> list[re.Match[str]]:
    return [found for name in arrays if (found := re.fullmatch(pattern, name))]


def _shape(arrays: Arrays, name: str, axes: int) -> tuple[int, ...]:
    of = "generator" if name.startswith(("synthesis.", "mapping.")) else "discriminator"
    if name not in arrays:
        raise UserError(
            f"The {of} has no {name!r}, which that of a StyleGAN2 has whose generator adds up images of all sizes: "
            "give weights of that architecture."
        )
    if arrays[name].ndim != axes:
        raise UserError(
            f"The {of}'s {name!r} has {arrays[name].ndim} axes, not {axes}: the file is damaged; fetch it again."
        )
    return tuple(map(int, arrays[name].shape))


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the folder and says what it holds."""
    parser = Parser(prog="python -m jaxgen.sampling.publishing.stylegan", description=str(__doc__).partition("\n")[0])
    parser.add_argument("file", metavar="FILE", type=a_path("FILE"), help="a .pkl file of StyleGAN2-ADA, or a folder")
    parser.add_argument("out", metavar="OUT", type=a_path("OUT"), help="the folder to write")
    told = "images whose deviation the discriminator sees, which a file does not tell (32 for the authors' CIFAR-10)"
    parser.add_argument("--group", type=count("group", 1), default=GROUP, help=told)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    use_compilation_cache()
    check_free(given.out, "OUT")
    networks = read_networks(given.file)
    config = published_config(networks, given.group)
    command = f"python -m jaxgen.sampling.publishing.stylegan {pathlib.Path(given.file).name} OUT --group={given.group}"
    files = write_run(networks, config, given.out, command)
    network, data = config.method.generator, config.data
    classes = f"{data.num_classes} classes" if data.num_classes else "no classes"
    print(
        f"{given.out}: images of {data.resolution}x{data.resolution}x{data.channels}, {classes}, "
        f"{network.channels} to {network.max_channels} channels, z of {network.z_dim}; {', '.join(files)}"
    )


if __name__ == "__main__":
    sys.exit(main())
