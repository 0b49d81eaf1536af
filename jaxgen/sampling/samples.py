"""Holds what was drawn from a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

from jaxgen.errors import UserError
from jaxgen.sampling.finite import NotFinite
from jaxgen.sampling.kinds import Image, Output


@dataclasses.dataclass(frozen=True)
class Samples:
    """Holds what was drawn.

    Attributes:
      main: what the method gives, as it is stored: uint8 `[N, H, W, C]` for images. What is not finite holds no
        picture: `pictures` is for showing all images.
      labels: int32 `[N]` where the method is conditional on them, else None.
      finite: `[N]` which samples are finite; not all of them are false.
      told: a sentence that says how many are not, and why; "" where all are finite.
      output: which output of `jaxgen.sampling.kinds` `main` is.
      more: further outputs, `{name: [N, ...]}`.
      asked: what the samples were drawn for, `{entry: [N, ...]}`: the method's conditions and, where these came from
        held-out data, all entries of those examples, their `image` among them. It is empty unless asked for.
    """

    main: Shaped[np.ndarray, "N *size"]
    labels: Int[np.ndarray, " N"] | None
    finite: Bool[np.ndarray, " N"]
    told: str = ""
    output: Output = dataclasses.field(default_factory=Image)
    more: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    asked: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def images(self) -> UInt8[np.ndarray, "N H W C"]:
        """Returns the images. Raises a UserError where the method gives something else."""
        if not isinstance(self.output, Image):
            raise UserError(f"This method gives {self.output.plural}, and no images.")
        return self.main

    @property
    def pictures(self) -> np.ndarray:
        """Returns a picture of each sample, as `jaxgen.report.images.grid` draws them; images that are not finite
        become magenta. Raises a UserError where the method gives something that cannot be seen.
        """
        found = self.output.pictures(self.main, self.finite)
        if found is None:
            raise UserError(f"This method gives {self.output.plural}, and no images.")
        return found

    def picture(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """Returns one picture of all samples, for a log; None if there is nothing to see of what the method gives."""
        return self.output.picture(self.main, self.finite)

    def need_finite(self, use: str) -> Samples:
        """Returns these samples. Raises NotFinite unless all are finite; `use` says in a clause what cannot be done."""
        if self.told:
            raise NotFinite(f"{self.told.rstrip('.')}; {use}.")
        return self
