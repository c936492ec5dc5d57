"""A generator that was fitted elsewhere and runs as the user's own program."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Positive, PositiveInt, Section

PLACEHOLDERS = ("{checkpoint}", "{first}", "{count}", "{seed}", "{output}")


class ExternalSampler(Section):
    """How images are requested."""

    batch: PositiveInt = 1000
    """Images per call; every call requests as many. A divisor of `generate.shard_images` wastes none; raise it where starting
    the program is slow."""


class External(Section):
    """A fitted generator that AdaInf calls but does not load; docs/generators-external.md defines the contract."""

    kind: Literal["external"]
    checkpoint: str
    """Its file. CHECKPOINT.json beside it states what it was fitted on. Not part of the request."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the checkpoint; a file with another digest is rejected."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Program and arguments, run without a shell; {checkpoint}, {first}, {count}, {seed} and {output} are replaced."""
    callable: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    """A Python function in place of a command, "module:function": (checkpoint, indices, seed) → images."""
    time_limit_s: Positive = 3600.0
    """Time limit of one call of the command; not part of the request."""
    sampler: ExternalSampler = ExternalSampler()
    """How `generate` requests images."""

    @model_validator(mode="after")
    def _is_callable(self) -> External:
        if (self.command is None) == (self.callable is None):
            raise ValueError("needs exactly one of command and callable; set one of them")
        for placeholder in PLACEHOLDERS[1:] if self.command else ():
            if not any(placeholder in word for word in self.command or ()):
                raise ValueError(f"needs {placeholder} in command; add it to the arguments")
        return self
