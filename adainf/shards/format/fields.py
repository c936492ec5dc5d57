"""The values in a sample's fields: labels, captions and JSON. Parsers raise `ValueError` with what follows the field's name."""

from __future__ import annotations

import json
from typing import Any

MAX_CLASSES = 65_536
"""Labels are 0 … this - 1: a larger one means a corrupt file, or is not a class number."""
_MAX_NAME = 200


def parse_label(data: bytes, key: str) -> int | str | None:
    """A class number or the name of a class, of a file or of a key of a JSON object. Raises `ValueError` for anything else."""
    value: Any = _json_value(data, key) if key else data
    if isinstance(value, bytes | str):
        try:
            value = int(value)
        except ValueError:
            name = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
            name = name.strip()
            if not name or not name.isprintable() or len(name) > _MAX_NAME:
                raise ValueError(f"is {name[:40]!r}, expected a class number or name") from None
            return name
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"has {key}: {json.dumps(value)[:40]}, expected a class number or name")
    if not -1 <= value < MAX_CLASSES:
        raise ValueError(f"is {_digits(value)}, not a class number: use 0, 1, … (below {MAX_CLASSES}), or -1 for none")
    return None if value < 0 else value


def parse_text(data: bytes, key: str) -> str | None:
    """A caption without white space around it; None where nothing remains. Raises `ValueError` for anything else."""
    if key:
        value = _json_value(data, key)
        if not isinstance(value, str | None) or not is_utf8(value or ""):
            raise ValueError(f"has {key}: {json.dumps(value)[:40]}, expected a text")
        return (value or "").strip() or None
    try:
        return data.decode().strip() or None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (at byte {error.start})") from None


def _json_value(data: bytes, key: str) -> Any:
    """The value of a key of a JSON object; None without it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    return found.get(key)


def json_keys_of(data: bytes) -> list[str]:
    """The keys of a JSON object; none for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return [printable(key)[:40] for key in found] if isinstance(found, dict) else []


def _digits(value: int) -> str:
    return str(value) if abs(value) < 10**40 else "a number of more than 40 digits"


def is_utf8(name: str) -> bool:
    """Whether the text can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 become lone surrogates, which an index cannot hold
        return False
    return True


def printable(name: str) -> str:
    """The name, with bytes that are not UTF-8 as escapes, \\xff; Python holds such a byte as U+DCFF."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")
