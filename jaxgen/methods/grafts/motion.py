"""Makes a model of images one of videos: temporal layers between its frozen blocks (Guo et al. 2024, AnimateDiff)."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.codecs.frames import check_video
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, difference
from jaxgen.methods.diffusion.checks import seer
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import Graft, Hooked, Order, bare_network, bare_params, network_of, with_network
from jaxgen.networks.hooks import Hook
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.temporal import TemporalTransformer
from jaxgen.networks.unet import UNet, at_level


@dataclasses.dataclass(frozen=True)
class Motion(Graft):
    """Temporal layers follow each block of a frozen U-Net and let the frames of a video attend to each other.

    A block is a residual block and, where there is one, the attention behind it. The U-Net sees the frames of a video
    as examples with one noise level and one text. The temporal layers alone see that they belong together, and where
    each stands in time. Their last projection starts at zero (Guo et al. 2024, section 4.2), so that training starts
    from frames that are images of the model, each for itself, and in the first step only these projections have a
    gradient.

    A part is `{path of a module: parameters of jaxgen.networks.temporal.TemporalTransformer}`. The batch's `video`
    [B, F, H, W, C] is what is diffused, and samples are videos.

    Raises:
      UserError: a number is out of its range.
    """

    group: str = "denoiser"  # the group of the U-Net
    frames: int = 16  # of a video, in training and in sampling
    heads: int = 8  # of every temporal attention; they divide the U-Net's widths
    depth: int = 1  # blocks of each temporal transformer
    middle: bool = True  # whether there is one in the middle of the U-Net too
    positions: int = 32  # the largest number of frames; 0 makes layers that do not know the frames' order
    file: str = ""  # a folder of diffusers' `MotionAdapter` that the part starts from
    learns: bool = True  # False: the weights stay those of the file, or of config.init_from.<name of the graft>
    order: ClassVar[Order] = "hooks"

    def __post_init__(self) -> None:
        if min(self.frames, self.depth, self.heads) < 1 or self.positions < 0:
            raise UserError(
                "A motion graft has frames, a depth and heads of at least 1, and its positions are not negative; here "
                f"frames={self.frames}, depth={self.depth}, heads={self.heads} and positions={self.positions}."
            )
        if 0 < self.positions < self.frames:
            raise UserError(
                f"A motion graft of positions={self.positions} cannot see frames={self.frames}: raise positions, which "
                "weights that exist were trained with, or lower frames."
            )

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        check_video(batch, self.frames)
        return self._fresh(name, key, trained, params)

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        if batch:  # where there is none, videos are sampled
            check_video(batch, self.frames)
        fresh = jax.eval_shape(lambda key: self._fresh(name, key, trained, params), jax.random.key(0))
        wrong = difference(part, fresh)
        if wrong:
            raise UserError(f"{self.file or f'config.init_from.{name}'} does not belong to this model: {wrong}.")
        return part

    def _fresh(self, name: str, key: Array, trained: Method, params: Params) -> Tree:
        unet = self.unet(trained)
        found = {}
        for path, width in self.places(unet, params).items():
            if width % self.network(unet).heads or width % 2:
                raise UserError(
                    f"config.method.grafts.{name}.heads={self.network(unet).heads} do not divide the {width} channels "
                    f"of {path!r}: choose other heads, or an even width."
                )
            own = jax.random.fold_in(key, zlib.crc32(path.encode()))
            found[path] = init_params(self.network(unet), own, jnp.zeros((self.frames, 1, 1, width)))
        return found

    def onto(self, trained: Method) -> Method:
        unet = self.unet(trained)
        assert isinstance(trained, DDPM)
        if trained.video not in (0, self.frames):
            raise UserError(
                f"A motion graft has frames={self.frames}, and another one {trained.video}: give both the same number."
            )
        network = self.network(unet)

        def hooks(part: Tree) -> Mapping[str, Hook]:
            return {path: _after(network, own) for path, own in part.items()}

        changed = with_network(trained, self.group, lambda network: Hooked(network, hooks))
        assert isinstance(changed, DDPM)
        return dataclasses.replace(changed, video=self.frames)

    def grafted(self, params: Params, part: Tree) -> Params:
        return {**params, self.group: {"network": params[self.group], "part": part}}

    def unet(self, trained: Method) -> UNet:
        """Returns the U-Net between whose blocks the layers stand, with its `attention_levels` named.

        Raises:
          UserError: there is none.
        """
        if not isinstance(trained, DDPM) or type(trained).denoiser is not DDPM.denoiser:
            raise UserError(
                f"A motion graft makes videos of a diffusion model of images or texts, and {type(trained).__name__} is "
                "none; leave it out."
            )
        unet = bare_network(network_of(trained, self.group))
        if not isinstance(unet, UNet):
            raise UserError(
                f"A motion graft stands in a U-Net, and the group {self.group!r} has the network "
                f"{type(unet).__name__}; use a graft of another kind, such as 'low_rank'."
            )
        if trained.guidance is not None and trained.guidance.sees_images:
            raise UserError(f"A {seer(trained.guidance)} sees images, not videos: choose another config.guidance.")
        height, width, *_ = trained.own_codec.shape(trained.image_shape)
        return unet.levels_kept(height, width)

    def places(self, unet: UNet, params: Params) -> dict[str, int]:
        """Returns `{path of the module that a temporal transformer follows: its width}`."""
        modules, found = bare_params(params[self.group]), {}
        for level, width in enumerate(unet.widths):
            for way, more in (("down", 0), ("up", 1)):
                for i in range(at_level(unet.blocks, level) + more):
                    attention = f"{way}_{level}_attention_{i}"
                    found[attention if attention in modules else f"{way}_{level}_block_{i}"] = width
        if self.middle and "middle_attention" in modules:
            found["middle_attention"] = unet.widths[-1]
        return found

    def network(self, unet: UNet) -> TemporalTransformer:
        """Returns the network that each entry of a part has the parameters of."""
        options = (self.depth, unet.norm_groups, self.positions, unet.dtype)
        return TemporalTransformer(self.frames, self.heads, *options)


def _after(network: TemporalTransformer, params: Tree) -> Hook:
    return lambda output, *_, **__: apply_params(network, params, output)
