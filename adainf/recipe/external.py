"""A generator that was fitted elsewhere and is run as somebody's own program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Positive, PositiveInt, Section

PLACEHOLDERS = ("{checkpoint}", "{first}", "{count}", "{seed}", "{output}")


class ExternalSampler(Section):
    """How images are asked for."""

    batch: PositiveInt = 1000
    """Images asked for in one call, always as many. A divisor of `generate.shard_images` leaves none over; larger where
    starting the program is slow."""


class External(Section):
    """A fitted generator that AdaInf only calls; docs/generators-external.md has the contract."""

    kind: Literal["external"]
    checkpoint: str
    """Its file, with CHECKPOINT.json beside it, which says what it was fitted on. Not part of the identity."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the checkpoint: another file is refused."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Program and arguments, run without a shell; {checkpoint}, {first}, {count}, {seed} and {output} are replaced."""
    callable: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    """Instead of a command a Python function, "module:function": (checkpoint, indices, seed) → images."""
    time_limit_s: Positive = 3600.0
    """Most seconds that one call of the command may take; no part of the identity."""
    sampler: ExternalSampler = ExternalSampler()
    """How `generate` asks for images."""

    @model_validator(mode="after")
    def _says_how_to_call_it(self) -> External:
        if (self.command is None) == (self.callable is None):
            raise ValueError("needs either command or callable")
        for placeholder in PLACEHOLDERS[1:] if self.command else ():
            if not any(placeholder in word for word in self.command or ()):
                raise ValueError(f"needs {placeholder} in its command")
        return self
