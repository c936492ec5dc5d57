"""Report all corrupt images of a source at once, so that a user fixes all of them before the next attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adainf.pipeline.progress import Reporter
from adainf.sources.base import BadData, DamagedImage
from adainf.sources.resize import Chosen


@contextmanager
def naming_all_damaged(chosen: Sequence[Chosen], reporter: Reporter) -> Iterator[None]:
    """In this block the images `chosen` are read: where one is corrupt, all others are checked, too, and named.

    Raises `DamagedImage` for the first one, with the number of the others.
    """
    try:
        yield
    except DamagedImage as error:
        raise _all_damaged(error, chosen, reporter) from None


def _all_damaged(first: DamagedImage, chosen: Sequence[Chosen], reporter: Reporter) -> DamagedImage:
    others = []
    with reporter.track("looking for more like it", total=sum(map(len, chosen))) as track:
        for images in chosen:
            for position in range(len(images)):
                try:
                    images[position]
                except DamagedImage as error:
                    if error.where != first.where:
                        others.append(error)
                except BadData:  # of another size, say: told once these are mended
                    pass
                track.advance()
    for other in others:
        reporter.info(f"{other.where}: {other.reason}")
    return DamagedImage(first.where, first.reason, also=len(others))
