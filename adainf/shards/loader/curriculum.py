"""A curriculum: the first mixture of a stream, and changes of its weights and sources during training, each from one step on.

Changes are records of the stream's state. The order of the images is a function of the
first mixture and of these records, so it is the same on every rank and after a restart. Each source continues at its position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import Field, JsonValue, ValidationError

from adainf.errors import BadInput
from adainf.pipeline.records import Record
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.fingerprint import APPORTIONMENT
from adainf.shards.loader.mixture import MixtureSchedule
from adainf.shards.loader.source import Opener, Source, Sources, named
from adainf.shards.loader.weights import Weight, as_json, check_weights, is_number, resolved, shown


class _Address(Record):
    """A source that a change adds, in a state."""

    address: str
    digest: str
    split: str


class _Record(Record):
    """One change, in a state."""

    step: int = Field(ge=0)
    weights: dict[str, float | Annotated[str, Field(pattern=r"^\d+(/[1-9]\d*)?$")]]
    """Of all sources that are drawn from this step on."""
    sources: dict[str, _Address]
    apportionment: Literal[2]


class Added(NamedTuple):
    """A source that a change adds."""

    name: str
    folder: ShardFolder
    split: str


@dataclass(frozen=True)
class Curriculum:
    """The mixtures of a stream. Sources keep their numbers: those that a change adds follow, one without weight stays."""

    names: tuple[str, ...]
    schedule: MixtureSchedule
    changes: tuple[dict[str, JsonValue], ...] = ()
    added: tuple[Added, ...] = ()

    def change(
        self,
        step: int,
        weights: Mapping[str, Weight] | None,
        shares: Mapping[str, Weight] | None,
        sources: Sources | None,
        opener: Opener,
    ) -> Curriculum:
        """This curriculum with another change. Raises `BadInput` for names, weights and shares that are invalid."""
        weights, shares = {} if weights is None else weights, {} if shares is None else shares
        new = named({} if sources is None else sources)
        for option, given in (("weights", weights), ("shares", shares)):
            if not isinstance(given, Mapping):
                raise BadInput(f"{option} is {shown(given)}; give a dict of NAME: NUMBER")
        last = max((cast(int, record["step"]) for record in self.changes), default=0)
        if step < last:
            raise BadInput(f"the mixture changes at step {last} already; give a step from there on, not {step}")
        if unknown := [name for name in (*weights, *shares) if name not in self.names]:
            raise BadInput(f"no source {unknown[0]} in this stream of {', '.join(self.names)}; add it by sources=")
        if known := [name for name in new if name in self.names]:
            raise BadInput(f"source {known[0]} is part of the stream; change it by weights=, or give the new set another name")
        current = dict(zip(self.names, self.schedule.used.weights, strict=True))
        mixed = {name: Source("", weights.get(name, current[name]), share=shares.get(name)) for name in self.names}
        for name in shares:
            mixed[name] = replace(mixed[name], weight=weights.get(name, 1))
        mixed = {name: one for name, one in mixed.items() if not (_is_zero(one.weight) or _is_zero(one.share))} | new
        check_weights(mixed)
        added = [Added(name, source.open(), source.split) for name, source in new.items()]
        counts = self._counts(added)
        resolved_weights = dict(zip(mixed, resolved(mixed, [counts[name] for name in mixed]), strict=True))
        schedule = self._continued(step, resolved_weights, added, opener)
        used = zip(counts, schedule.used.weights, strict=True)
        record = _Record(
            step=step,
            weights={name: as_json(weight) for name, weight in used if weight},
            sources={a.name: _Address(address=a.folder.uri, digest=a.folder.digest, split=a.split) for a in added},
            apportionment=APPORTIONMENT,
        )
        return self._with(record, schedule, added)

    def replay(self, changes: JsonValue, opener: Opener) -> Curriculum:
        """This curriculum with the changes of a saved state. Raises `BadInput` where they are corrupt, and where one of their
        sources has changed."""
        try:
            records = [_Record.model_validate(record) for record in cast(list[JsonValue], changes)]
        except (ValidationError, TypeError):
            raise BadInput("the changes of the saved position are corrupt; restore the file that it was loaded from") from None
        replayed = self
        for record in records:
            replayed = replayed._replayed(record, opener)
        return replayed

    def _replayed(self, record: _Record, opener: Opener) -> Curriculum:
        added = []
        for name, source in record.sources.items():
            folder = ShardFolder.open(source.address)
            if folder.digest != source.digest:
                raise BadInput(f"source {name}, {folder.uri}, has changed since the position was saved; restore it")
            added.append(Added(name, folder, source.split))
        if unknown := record.weights.keys() - {*self.names, *record.sources}:
            raise BadInput(
                f"the saved position weighs {min(unknown)}, which is no source; restore the file that it was loaded from"
            )
        weights = {name: Fraction(str(weight)) for name, weight in record.weights.items()}  # exactly the weights that were used
        return self._with(record, self._continued(record.step, weights, added, opener), added)

    def _counts(self, added: list[Added]) -> dict[str, int]:
        counts = dict(zip(self.names, self.schedule.counts, strict=True))
        return counts | {one.name: one.folder.split(one.split).images for one in added}

    def _continued(self, step: int, weights: Mapping[str, Weight], added: list[Added], opener: Opener) -> MixtureSchedule:
        counts, windows = self._counts(added), self.schedule.windows
        if windows is not None:
            windows = [*windows, *(one for a in added if (one := opener.windows(a.folder, a.split)))]
        try:
            return replace(
                self.schedule,
                counts=list(counts.values()),
                weights=[weights.get(name, 0) for name in counts],
                windows=windows,
                earlier=self.schedule,
                first=step * self.schedule.global_batch,
            )
        except ValueError as error:
            raise BadInput(f"{error}") from None

    def _with(self, record: _Record, schedule: MixtureSchedule, added: list[Added]) -> Curriculum:
        names = (*self.names, *(one.name for one in added))
        return Curriculum(names, schedule, (*self.changes, record.model_dump(mode="json")), (*self.added, *added))


def _is_zero(value: object) -> bool:
    return is_number(value) and value == 0
