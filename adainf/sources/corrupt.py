"""Report all corrupt images of a source at once, so that a user can fix all of them before the next attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adainf.pipeline.progress import Reporter
from adainf.sources.base import BadData, CorruptImage
from adainf.sources.resize import Selection


@contextmanager
def report_all_corrupt(selections: Sequence[Selection], reporter: Reporter) -> Iterator[None]:
    """Read the images `selections` in this block: at the first corrupt one, all others are checked and reported, too.

    Raises `CorruptImage` for the first one, with the number of the others.
    """
    try:
        yield
    except CorruptImage as error:
        raise _check_all(error, selections, reporter) from None


def _check_all(first: CorruptImage, selections: Sequence[Selection], reporter: Reporter) -> CorruptImage:
    others = []
    with reporter.track("check for more corrupt images", total=sum(map(len, selections))) as track:
        for images in selections:
            for position in range(len(images)):
                try:
                    images[position]
                except CorruptImage as error:
                    if error.where != first.where:
                        others.append(error)
                except BadData:  # for example of another size: reported once the corrupt images are fixed
                    pass
                track.advance()
    for other in others:
        reporter.info(f"{other.where}: {other.reason}")
    return CorruptImage(first.where, first.reason, also=len(others))
