"""Reading files of a source: an image once, for its digest; a small table whole."""

import hashlib
from collections.abc import Iterator

from sknet.data.sources.source import MAX_IMAGE_BYTES, Image
from sknet.data.sources.trees import FileTree, Skipped, SourceFile, lasting_fault
from sknet.errors import UserError


def scan_image(tree: FileTree, file: SourceFile) -> Iterator[Image | Skipped]:
    """The one image that a file is."""
    if fault := unfit_size(file.size):
        yield Skipped(file.path, fault)
        return
    content = tree.read(file.path, size=MAX_IMAGE_BYTES)
    yield Image("", 0, len(content), hashlib.sha256(content).hexdigest())


def unfit_size(size: int) -> str | None:
    """Why an image can't have this many bytes, or None."""
    if size == 0:
        return "empty"
    if size > MAX_IMAGE_BYTES:
        return f"{size} bytes, more than {MAX_IMAGE_BYTES}"
    return None


def read_whole(tree: FileTree, name: str, limit: int) -> bytes:
    """A small file beside the images. Raises UserError if it can't be read or exceeds `limit`."""
    try:
        content = tree.read(name, size=limit + 1)
    except OSError as error:
        where = f"{tree.location}/{name}"
        raise UserError(f"{where} can't be read: {lasting_fault(error, where)}") from None
    if len(content) > limit:
        raise UserError(f"{tree.location}/{name} is larger than {limit} bytes")
    return content


def needed_file(tree: FileTree, name: str) -> SourceFile:
    """A file without which the source is none. Raises UserError if it is no plain file."""
    file = tree.file(name)
    if not isinstance(file, SourceFile):
        reason = file.reason if file else "it is gone"
        raise UserError(f"{tree.location}/{name} can't be read: {reason}")
    return file
