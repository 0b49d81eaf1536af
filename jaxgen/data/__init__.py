"""The data room holds sources of examples, and the loader that makes batches of them.

    source = open_source("digits", "train", resolution=8, channels=1)
    loader = Loader({"": source}, batch_size=128, seed=0)
    batch = next(loader)          # {"image": uint8 [128, 8, 8, 1], "label": int32 [128]}

`jaxgen.data.transforms` (JAX) turns uint8 batches into floats and augments them on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxgen.data.source import Arrays, Request, Source, batches
from jaxgen.data.sources import open_source

if TYPE_CHECKING:
    from jaxgen.data.loader import Loader

__all__ = ["Arrays", "Loader", "Request", "Source", "batches", "open_source"]


def __getattr__(name: str) -> object:
    # Grain takes most of a second to import; only those who load batches pay for it.
    if name == "Loader":
        from jaxgen.data.loader import Loader

        return Loader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
