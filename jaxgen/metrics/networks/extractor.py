"""Applies a pure function to many images, in batches of one compiled shape, split over all devices."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Num

from jaxgen.arrays import Tree
from jaxgen.errors import UserError


class Extractor:
    """Applies `function(params, images)` to many images in one compiled shape, each batch split over all devices.

    The last batch is filled up with zeros and cut again, so that no result depends on how many images there are.

    Args:
      function: pure; images `[B, H, W, C]` to a tree of arrays with a leading `[B]`, an image's row depending on
        that image alone.
      params: its first argument, placed on every device once.
    """

    def __init__(self, function: Callable[[Tree, jax.Array], Tree], params: Tree):
        self._mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
        whole, self._split = (NamedSharding(self._mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
        self._params = jax.device_put(params, whole)
        self._function = jax.jit(function, in_shardings=(whole, self._split), out_shardings=self._split)

    def __call__(self, images: Num[np.ndarray, "N ..."], batch: int = 100) -> Tree:
        """Returns the function's results for `[N, ...]` images, as NumPy arrays of leading axis N.

        Args:
          batch: images per program, rounded up to a multiple of the devices.

        Raises:
          UserError: for no images, or a batch below 1.
        """
        if batch < 1 or not len(images):
            raise UserError(f"Features need at least one image and a batch of at least 1, not {len(images)}, {batch}.")
        batch = -(-batch // self._mesh.size) * self._mesh.size
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            count = len(part)
            if count < batch:
                part = np.concatenate([part, np.zeros((batch - count, *part.shape[1:]), part.dtype)])
            # awaited one by one: several sharded programs in flight can deadlock on a CPU
            found = jax.block_until_ready(self._function(self._params, jax.device_put(part, self._split)))
            parts.append(jax.tree.map(lambda x, count=count: np.asarray(x)[:count], found))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)
