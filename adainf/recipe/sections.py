"""Base class and field types of the recipe's sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # fits into float32: too large a rate fails in training, not in a library
Width = Annotated[int, Field(ge=1, le=65_536)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Precision = Literal["no", "bf16", "fp16"]


ALL_SETTINGS = "all settings"
"""Context of `model_dump` that keeps settings which are omitted from requests."""


class Section(BaseModel):
    """A section of the recipe: immutable, and unknown settings are errors. The docstring of a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    added_later: ClassVar[frozenset[str]] = frozenset()
    """Settings that are omitted from requests where they have their default: those of older versions stay valid."""

    @model_serializer(mode="wrap")
    def _omit_defaults(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dumped.items()
            if info.context == ALL_SETTINGS or name not in self.added_later or getattr(self, name) != fields[name].default
        }
