"""Reads and writes translation networks in the layout of their authors' PyTorch code, such as `latest_net_G.pth`.

    network, params, memory = networks.read("latest_net_G.pth")
    networks.write("latest_net_G.pth", network, params, memory)

Files are those of pix2pix and CycleGAN (`junyanz/pytorch-CycleGAN-and-pix2pix`: `unet_128`, `unet_256`,
`resnet_6blocks`, `resnet_9blocks` and their patch discriminators) and of pix2pixHD's generators (`NVIDIA/pix2pixHD`:
`global`, `local`). They are read without torch and without running code that a file names
(`jaxgen.interop.torch_file`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.arrays import Memory, Tree
from jaxgen.errors import UserError
from jaxgen.interop import torch_file, torch_writer
from jaxgen.interop.translation.layout import Path, layers
from jaxgen.networks.gans.patchgan import PatchDiscriminator
from jaxgen.networks.translation.layers import TranslationNorm
from jaxgen.networks.translation.resnet import CoarseToFine, TranslationResNet
from jaxgen.networks.translation.unet import TranslationUNet

Tensors = Mapping[str, np.ndarray]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def from_tensors(network: nn.Module, tensors: Tensors) -> tuple[Tree, Memory]:
    """Returns a network's parameters, and running statistics if its norm is "batch", from the authors' tensors.

    A norm of "affine_instance" takes the scale and the bias of the authors' BatchNorm and leaves its running
    statistics: this is what their test script computes, which normalises each image of a batch of one by itself.

    Raises:
      UserError: a tensor is missing, is left over or has another shape.
    """
    # old files have running statistics of instance normalisation too, which nothing reads
    unused = {name for name in tensors if _part(name) in BATCH_NORM[2:] and _weight_of(name) not in tensors}
    left = {name: tensor for name, tensor in tensors.items() if name not in unused}
    params: dict[Path, np.ndarray] = {}
    statistics: dict[Path, np.ndarray] = {}
    for layer in layers(network):
        if layer.kind != "norm":
            params[(*layer.ours, "kernel")] = _kernel(_take(left, f"{layer.theirs}.weight"), layer.kind)
            bias = left.pop(f"{layer.theirs}.bias", None)
            if bias is not None and not layer.bias:
                params[(*layer.ours, "bias")] = bias
        elif network.norm in ("batch", "affine_instance"):
            left.pop(f"{layer.theirs}.num_batches_tracked", None)
            found = {part: _take(left, f"{layer.theirs}.{part}") for part in BATCH_NORM[:4]}
            params |= {(*layer.ours, "scale"): found["weight"], (*layer.ours, "bias"): found["bias"]}
            statistics |= {(*layer.ours, "mean"): found["running_mean"], (*layer.ours, "var"): found["running_var"]}
    if left:
        raise UserError(f"The weights have {min(left)}, which {type(network).__name__} with these options does not.")
    memory = {"batch_stats": unflatten_dict(statistics)} if network.norm == "batch" else {}
    return unflatten_dict(_as_float(params)), unflatten_dict(_as_float(flatten_dict(memory)))


def to_tensors(network: nn.Module, params: Tree, memory: Memory | None = None) -> dict[str, np.ndarray]:
    """Returns the authors' tensors of a network. It is the inverse of `from_tensors`.

    Biases that the authors' layers have before an instance normalisation, which removes them, are zeros.
    Running statistics that a norm of "affine_instance" does not have are those of a fresh layer.

    Raises:
      UserError: the network is of another class, or the parameters are not its own.
    """
    left = flatten_dict(params)
    statistics = flatten_dict((memory or {}).get("batch_stats", {}))
    found: dict[str, np.ndarray] = {}
    for layer in layers(network):
        if layer.kind != "norm":
            kernel = np.asarray(_take(left, (*layer.ours, "kernel")), np.float32)
            found[f"{layer.theirs}.weight"] = _tensor(kernel, layer.kind)
            bias = left.pop((*layer.ours, "bias"), np.zeros(kernel.shape[-1], np.float32) if layer.bias else None)
            if bias is not None:
                found[f"{layer.theirs}.bias"] = np.asarray(bias, np.float32)
        elif network.norm in ("batch", "affine_instance"):
            scale, bias = (np.asarray(_take(left, (*layer.ours, name)), np.float32) for name in ("scale", "bias"))
            mean, var = (statistics.get((*layer.ours, name)) for name in ("mean", "var"))
            values: tuple[np.ndarray, ...] = (
                scale,
                bias,
                np.zeros_like(scale) if mean is None else np.asarray(mean, np.float32),
                np.ones_like(scale) if var is None else np.asarray(var, np.float32),
                np.zeros((), np.int64),
            )
            found |= {f"{layer.theirs}.{part}": value for part, value in zip(BATCH_NORM, values, strict=True)}
    if left:
        raise UserError(f"The parameters have {'/'.join(min(left))}, which {type(network).__name__} does not.")
    return found


def recognise(tensors: Tensors, norm: str = "") -> nn.Module:
    """Returns the network whose layout these tensors have.

    Args:
      tensors: the authors' tensors.
      norm: how weights of batch normalisation are used: "affine_instance", by default, as the authors' test script does
        for one image at a time, or "batch", by running statistics. Other networks need no choice.

    Raises:
      UserError: the layout is unknown, or the choice does not fit.
    """
    if norm not in ("", "affine_instance", "batch"):
        raise UserError(f"The norm of authors' weights is 'affine_instance' or 'batch', not {norm!r}.")
    batch = any(name.endswith("running_mean") and _weight_of(name) in tensors for name in tensors)
    if norm and not batch:
        raise UserError("The weights have no batch normalisation: leave the norm out, which is a choice of its use.")
    kind = cast(TranslationNorm, (norm or "affine_instance") if batch else "instance")
    if "model.model.0.weight" in tensors:
        return _recognised_unet(tensors, kind)
    if "model.1.weight" in tensors and tensors["model.1.weight"].shape[2:] == (7, 7):
        return _recognised_resnet(tensors, kind)
    if "model.0.weight" in tensors or "net.0.weight" in tensors:
        return _recognised_patches(tensors, "batch" if batch else "instance")
    raise UserError(
        f"The weights, of which one is {next(iter(tensors), 'none')!r}, are of no network that is known here: a U-Net, "
        "a ResNet or a patch discriminator of pix2pix and CycleGAN, or a generator of pix2pixHD."
    )


def read(path: str | os.PathLike[str], norm: str = "") -> tuple[nn.Module, Tree, Memory]:
    """Reads `latest_net_G.pth` or `latest_net_D.pth`: the network, its parameters and its running statistics.

    Args:
      path: the file.
      norm: as in `recognise`.

    Raises:
      UserError: the file cannot be read, or its layout is unknown.
    """
    tensors = torch_file.read(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}  # of DataParallel
    network = recognise(tensors, norm)
    return network, *from_tensors(network, tensors)


def write(path: str | os.PathLike[str], network: nn.Module, params: Tree, memory: Memory | None = None) -> None:
    """Writes a network's weights as the authors' code loads them.

    Raises:
      UserError: the network has no layout of theirs, or the file cannot be written.
    """
    torch_writer.write(path, to_tensors(network, params, memory))


# from names and shapes to networks


def _recognised_unet(tensors: Tensors, kind: TranslationNorm) -> TranslationUNet:
    downs = 1 + max(name.count(".model.") for name in tensors) - 1
    first, last = tensors["model.model.0.weight"], _take(dict(tensors), "model.model.3.weight")
    return TranslationUNet(
        (2**downs, 2**downs, last.shape[1]), first.shape[0], downs, dropout_blocks=max(downs - 5, 0), norm=kind
    )


def _recognised_resnet(tensors: Tensors, kind: TranslationNorm) -> TranslationResNet | CoarseToFine:
    blocks = sorted({int(m[1]) for n in tensors if (m := re.fullmatch(r"model\.(\d+)\.conv_block\.1\.weight", n))})
    if not blocks:
        raise UserError("The weights have no residual blocks, so their number of halvings is unknown.")
    options: dict[str, Any] = {
        "width": tensors["model.1.weight"].shape[0],
        "downs": (blocks[0] - 4) // 3,
        "blocks": len(blocks),
        "dropout": 0.5 if any(".conv_block.6.weight" in n and tensors[n].ndim == 4 for n in tensors) else 0.0,
        "norm": kind,
    }
    enhancers = {int(m[1]) for name in tensors if (m := re.match(r"model(\d+)_1\.", name))}
    last = f"model{max(enhancers)}_2." if enhancers else "model."
    end = max((n for n in tensors if n.startswith(last) and n.endswith(".bias")), key=_order)
    image = tensors[end.removesuffix("bias") + "weight"]
    shape = (256, 256, int(image.shape[0]))
    if not enhancers:
        return TranslationResNet(shape, **options)
    count, width = len(enhancers), tensors[f"model{max(enhancers)}_1.1.weight"].shape[0]
    local = len({n for n in tensors if re.fullmatch(r"model1_2\.\d+\.conv_block\.1\.weight", n)})
    return CoarseToFine(shape, **{**options, "width": width}, enhancers=count, local_blocks=local)


def _recognised_patches(tensors: Tensors, kind: Literal["batch", "instance"]) -> PatchDiscriminator:
    if "net.0.weight" in tensors:
        return PatchDiscriminator(tensors["net.0.weight"].shape[0], 0, kind)
    convolutions = sum(tensor.ndim == 4 for tensor in tensors.values())
    return PatchDiscriminator(tensors["model.0.weight"].shape[0], convolutions - 2, kind)


def _part(name: str) -> str:
    return name.rpartition(".")[2]


def _weight_of(name: str) -> str:
    """Returns the name of the weight that stands beside a tensor."""
    return f"{name.rpartition('.')[0]}.weight"


def _order(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def _take(tensors: dict[Any, Any], name: Any) -> Any:
    if name not in tensors:
        written = name if isinstance(name, str) else "/".join(name)
        raise UserError(f"The weights have no {written}, which the network needs.")
    return tensors.pop(name)


def _kernel(tensor: np.ndarray, kind: str) -> np.ndarray:
    """[out, in, h, w] -> [h, w, in, out]; of a transposed convolution [in, out, h, w], and rotated by 180 degrees."""
    return tensor.transpose(2, 3, 1, 0) if kind == "conv" else tensor[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


def _tensor(kernel: np.ndarray, kind: str) -> np.ndarray:
    if kind == "conv":
        return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(kernel[::-1, ::-1].transpose(2, 3, 0, 1))


def _as_float(flat: Mapping[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    return {path: np.ascontiguousarray(value, np.float32) for path, value in flat.items()}
