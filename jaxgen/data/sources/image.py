"""`image:<file>` is one picture, for models that learn from a single one.

Every split, whatever its name, is that picture: `image` uint8 [H, W, C]. It is cropped in the centre to the aspect of
`config.data.resolution` and resized, which is told at the start of training. A resolution of (0, 128) or (128, 0) keeps
the picture's own aspect.
"""

from __future__ import annotations

from jaxgen.data.images import decode, upright_size
from jaxgen.data.source import Request, Source, locate
from jaxgen.files import regular_file
from jaxgen.files.pictures import open_image


class Image(Source):
    """Gives one picture, as the only example of every split.

    Raises:
      UserError: the file is no picture, is damaged, or has other channels than are asked for.
    """

    takes = "<file>"

    def __init__(self, request: Request):
        super().__init__(request)
        path = regular_file(locate(request.argument, request.root), "config.data.source")
        data, where = path.read_bytes(), repr(str(path))
        self.arrays = {"image": decode(data, request.resolution, request.channels, where)[None]}
        height, width = self.own_size(request.argument, request.root)
        wanted = request.resolution
        if (height, width) != wanted:
            scale = min(height / wanted[0], width / wanted[1])
            whole = (round(wanted[0] * scale), round(wanted[1] * scale)) == (height, width)
            how = "resized" if whole else "cropped in the centre and resized"
            self.notes = (f"{width}x{height} pixels, {how} to {wanted[1]}x{wanted[0]}",)

    @staticmethod
    def own_size(argument: str, root: str | None = None) -> tuple[int, int]:
        """Returns the height and width of the picture in its file, upright. Raises a UserError if it is damaged."""
        path = regular_file(locate(argument, root), "config.data.source")
        with open_image(path.read_bytes(), repr(str(path))) as image:
            return upright_size(image, repr(str(path)))
