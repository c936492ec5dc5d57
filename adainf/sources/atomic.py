"""What becomes of an artifact whose images turn out to be damaged: nothing of it stays, and all of them are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.sources.base import BadData, DamagedImage
from adainf.sources.resize import Chosen


@contextmanager
def whole_or_nothing(run: Run, name: str, chosen: Sequence[Chosen], reporter: Reporter) -> Iterator[None]:
    """Write artifact `name` from `chosen` in this block. Raises `BadData` after discarding what was written.

    Where an image is damaged the others are looked at, too, so that a user mends all of them at once.
    """
    try:
        yield
    except BadData as error:
        run.discard(name)
        if isinstance(error, DamagedImage):
            raise _all_damaged(error, chosen, reporter) from None
        raise


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
        reporter.say(f"{other.where}: {other.reason}")
    return DamagedImage(first.where, first.reason, also=len(others))
