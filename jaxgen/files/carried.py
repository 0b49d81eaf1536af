"""Puts texts into the PNG files that are written, and reads them again.

A PNG file may have text chunks beside its pixels: pairs of a keyword and a text. Image viewers show them, and the
pixels are the same with and without them.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator, Mapping

from etils import epath
from PIL.PngImagePlugin import PngInfo

from jaxgen.errors import UserError
from jaxgen.files.pictures import read_picture

log = logging.getLogger("jaxgen")
INDEX = "jaxgen index"  # the keyword of the number that a picture has among those of its call
MOST = 2**20 - 1  # bytes of a text; readers refuse more, since a short chunk may unfold to any length

_texts: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("texts of pictures", default=None)


@contextlib.contextmanager
def carrying(texts: Mapping[str, str]) -> Iterator[None]:
    """Lets every PNG file that is written in this block carry texts, `{keyword: text}`.

    The texts are known where a command begins, and the files are written many calls below it, also by outputs of other
    packages (`jaxgen.sampling.kinds.Output`), none of which needs to know of texts. A text of more than `MOST` bytes
    is left out, which is told.
    """
    sizes = {keyword: len(text.encode()) for keyword, text in texts.items()}
    for keyword, size in sizes.items():
        if size > MOST:
            log.warning("pictures do not carry %r: it has %d bytes, and a PNG reader takes %d", keyword, size, MOST)
    token = _texts.set({keyword: text for keyword, text in texts.items() if sizes[keyword] <= MOST})
    try:
        yield
    finally:
        _texts.reset(token)


def text_chunks(index: int | None = None) -> PngInfo | None:
    """Returns the text chunks of a file that is about to be written; None where it carries nothing.

    Args:
      index: the number of the picture among those of its call, where the file has one picture.
    """
    texts = dict(_texts.get() or {})
    if not texts:
        return None
    chunks = PngInfo()
    for keyword, text in (texts | ({} if index is None else {INDEX: str(index)})).items():
        chunks.add_itxt(keyword, text, zip=len(text) > 200)
    return chunks


def carried_texts(path: epath.PathLike, named_by: str) -> dict[str, str]:
    """Returns the texts that a PNG file carries, `{keyword: text}`.

    Args:
      path: the file.
      named_by: the flag that gives it, for messages.

    Raises:
      UserError: the file cannot be read, or is no PNG file.
    """
    try:
        _, picture = read_picture(path, ("PNG",))
    except UserError as error:
        raise UserError(f"{named_by}: {error}") from error
    return {str(keyword): str(text) for keyword, text in getattr(picture, "text", {}).items()}
