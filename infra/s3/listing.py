"""Listings, page by page."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import AnswerError

T = TypeVar("T")


def pages(
    begin: Callable[[], Operation],
    method: str,
    where: dict[str, str],
    parse: Callable[[dict[str, Any]], Iterable[T]],
) -> Iterator[T]:
    """What `parse` finds in each answer; each page is an operation with a budget of its own.

    Raises S3Error.
    """
    marks: dict[str, str] = {}
    while True:
        with begin() as operation:
            found, following = operation.run(_page(method, where | marks, parse))
        yield from found
        if following is None:
            return
        marks = following


def _page(
    method: str, request: dict[str, str], parse: Callable[[dict[str, Any]], Iterable[T]]
) -> Callable[[Any, Attempt], tuple[list[T], dict[str, str] | None]]:
    def ask(client: Any, _: Attempt) -> tuple[list[T], dict[str, str] | None]:
        page = getattr(client, method)(**request)
        try:
            return list(parse(page)), _following(page)
        except KeyError as missing:
            raise AnswerError(f"a listing without {missing}") from None

    return ask


def _following(page: dict[str, Any]) -> dict[str, str] | None:
    """The parameters that ask for the next page, None after the last. Raises KeyError."""
    if not page["IsTruncated"]:
        return None
    if "NextContinuationToken" in page:
        return {"ContinuationToken": page["NextContinuationToken"]}
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
