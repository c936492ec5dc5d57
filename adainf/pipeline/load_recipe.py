"""Loading and validation of a recipe; each error is one sentence."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from adainf.errors import BadInput
from adainf.pipeline.records import sha256
from adainf.pipeline.shared import provided_recipes, shared
from adainf.recipe import External, Recipe
from adainf.storage import NotFound, open_store

_GENERATORS = [["generator"], ["generators", "*", "generator"]]
_UNIONS = [["real"], *_GENERATORS, *([*one, "diffusion", "objective"] for one in _GENERATORS), ["pretrain", "method"]]
_UNIONS += [["positives", "draw"], ["positives", "use"]]
"""Discriminated unions by `kind`; pydantic adds the tag to the location of an error. `*` stands for any name."""
_REMOVED = {
    "plan.schedule": "was removed in 0.2.0: arms adainf and weak use the plan's augmentation from the first step; delete it",
    "plan.tiers": "was removed in 0.2.0: the plan gives all shards of a source one weight; delete it, and to weigh sets of "
    "different quality separately, list each set under generators",
}
"""Removed settings of older recipes, and the fix for each."""


DIGEST = "ADAINF_RECIPE_SHA256"
"""Environment variable with the SHA-256 that a recipe in a store must have. The controller sets it in its pods."""
ALLOW_EXTERNAL = "ADAINF_ALLOW_EXTERNAL"
"""Environment variable: 1 allows recipes in a store to name programs, as --allow-external does."""


def load_recipe(path: str | Path, settings: Sequence[str] = (), digest: str | None = None) -> Recipe:
    """Load and validate one recipe, a file or an object in a store (``s3://bucket/recipe.yaml``).

    `settings`: changes of the form ``section.key=value``, applied in order; the value is YAML. `digest`: the SHA-256 that it
    must have; for an object, None takes that of `DIGEST`, if it is set. A name without suffix, such as ``demo``, is that recipe
    of AdaInf's, unless there is such a file. Raises `BadInput`, one sentence with file, field and fix.
    """
    try:
        text = _read(path, digest)
    except (FileNotFoundError, NotFound):
        near = difflib.get_close_matches(Path(path).stem, provided_recipes(), n=1)
        fix = f"did you mean the recipe {near[0]}?" if near else f"AdaInf provides {', '.join(provided_recipes())}"
        raise BadInput(f"{path}: no such recipe; give a YAML file, or a name: {fix}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a recipe ({error}); give a YAML file") from None
    return parse_recipe(text, path, settings)


def parse_recipe(text: str, path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """As `load_recipe`, for the text of the file `path`."""
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a recipe is a mapping of settings, not {_kind(data)}; see recipes/demo.yaml")
    for setting in settings:
        _set(data, setting)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        changed = "".join(f" with --set {setting}" for setting in settings)
        raise BadInput(f"{path}{changed}: {_explain(error)}") from None


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise BadInput(f"{where}: is not valid YAML (nested too deeply); fix the brackets") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = (str(getattr(error, "problem", error)).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{where}:{line} is not valid YAML ({problem}); fix that line") from None


def _set(data: dict[str, Any], setting: str) -> None:
    """Apply ``section.key=value`` to the data of a recipe. Raises `BadInput` where it is not of that form."""
    name, equals, value = setting.partition("=")
    *sections, key = name.strip().split(".")
    if not (equals and key and all(sections)):
        raise BadInput(f"invalid --set {setting!r}: expected section.key=value, such as pretrain.steps=600")
    inner = data
    for number, section in enumerate(sections):
        found = {} if inner.get(section) is None else inner[section]
        if not isinstance(found, dict):
            at = ".".join(sections[: number + 1])
            raise BadInput(f"--set {setting}: {at} is not a section of the recipe; set {at} itself, as {at}=VALUE")
        inner[section] = inner = dict(found)  # a copy: an alias of YAML may be in several places
    inner[key] = _parse_yaml(value, f"--set {setting}")


def _read(path: str | Path, digest: str | None) -> str:
    folder, _, name = str(path).rpartition("/")
    data = open_store(folder).get(name) if is_remote(path) else _find(path).read_bytes()
    expected = digest or (os.environ.get(DIGEST) if is_remote(path) else None)
    if expected and sha256(data) != expected:
        raise BadInput(
            f"{path} has SHA-256 {sha256(data)}, expected {expected}: it was changed after the controller wrote it; check who "
            f"can write to the store, and restart the controller, which writes it again (elsewhere: unset {DIGEST})"
        )
    return data.decode()


def _find(path: str | Path) -> Path:
    """The file, or the recipe of that name that AdaInf provides."""
    file = Path(path)
    return shared(f"recipes/{path}.yaml") if not file.exists() and str(path) in provided_recipes() else file


def is_remote(path: str | Path) -> bool:
    """Whether a recipe is an object in a store."""
    return "://" in str(path)


def check_external(path: str | Path, recipe: Recipe, allow_external: bool) -> None:
    """Raise `BadInput` where a recipe from a store would run a program or a function, unless that is allowed.

    Who may write to the store would otherwise run code with the rights and the credentials of this process.
    """
    if not is_remote(path) or allow_external or os.environ.get(ALLOW_EXTERNAL) == "1":
        return
    for source in recipe.sources.values():
        if isinstance(source.generator, External):
            program = source.generator.callable or " ".join(source.generator.command or ())
            raise BadInput(
                f"{path} runs {_short(program)} ({source.label('generator')}); read it, and allow the programs of a recipe in "
                f"a store with --allow-external, or {ALLOW_EXTERNAL}=1 in the environment of the pods"
            )


_MERGE = "tag:yaml.org,2002:merge"
_MAX_VALUES = 100_000
_repr = reprlib.Repr()
_repr.maxlevel = _repr.maxlist = _repr.maxdict = 3
_repr.maxstring = 60


class _Loader(yaml.SafeLoader):
    """YAML in which duplicate keys are errors and 1e-4 is a number.

    Invalid values of a type, such as the date 2026-13-45, are errors with their line. So are aliases that expand to more than
    100,000 values, with which a few lines would fill the memory.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_expansion(node, {})
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "the key is not a scalar", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {_short(key)}", key_node.start_mark)
            seen.add(key)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > 1024:  # hexadecimal; Python refuses to print thousands of digits
                raise ValueError
            return value
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            tag = node.tag.rpartition(":")[2]
            problem = f"{_short(node.value)} is not a valid {tag}" if isinstance(node, yaml.ScalarNode) else str(error)
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _check_expansion(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values of a node with its aliases expanded. Raises `ConstructorError` above the limit and for a cycle."""
    known = sizes.get(id(node))
    if known is None:
        sizes[id(node)] = _MAX_VALUES  # an alias to it from inside is a cycle
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known = sizes[id(node)] = 1 + sum(_check_expansion(part, sizes) for part in parts)
    if known > _MAX_VALUES:
        problem = f"its aliases expand to more than {_MAX_VALUES:,} values"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return known


def _explain(error: ValidationError) -> str:
    """The first problem of a recipe as one sentence: field, problem, fix."""
    problems = error.errors()
    # A misspelled key also causes "field required" for the intended one: report the unknown key.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = list(problem["loc"])
    field = ".".join(str(part) for part in _without_tags(location)) or "recipe"
    if problem["type"] == "extra_forbidden" and field in _REMOVED:
        return f"{field} {_REMOVED[field]}"
    if problem["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        known = list(section.model_fields) if section else []
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{field} is not a setting; {fix}"
    if problem["type"] == "missing":
        return f"{field} is missing; add it"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = problem["ctx"].get("expected_tags", "")
        return f"{field}.kind must be one of {tags or _tags_at(location)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if field == "recipe" else f"{field} {message}"
    return f"{field} is {_short(problem['input'])}; {message[0].lower()}{message[1:]}"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation may contain."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, UnionType, Union, dict):
        for argument in get_args(annotation):
            yield from _sections(argument)


def _is_by_name(annotation: Any) -> bool:
    """Whether the annotation is a mapping with keys that the user chooses."""
    return get_origin(annotation) is dict or any(_is_by_name(argument) for argument in get_args(annotation))


def _tag(section: type[BaseModel]) -> tuple[str, ...]:
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _section_at(location: list[Any]) -> type[BaseModel] | None:
    """The section at a pydantic error location; such a location contains the tags of unions."""
    section: type[BaseModel] = Recipe
    options: list[type[BaseModel]] = []
    named = False
    for part in location:
        if named:
            named = False
            continue
        tagged = [option for option in options if part in _tag(option)]
        if tagged:
            section = tagged[0]
            continue
        if part not in section.model_fields:
            return None
        annotation = section.model_fields[part].annotation
        options, named = list(_sections(annotation)), _is_by_name(annotation)
        if options:
            section = options[0]
    return section


def _without_tags(location: list[Any]) -> list[Any]:
    """The location as in the recipe: without the tags of unions."""
    path: list[Any] = []
    for index, part in enumerate(location):
        if not any(_is_at(location[:index], union) for union in _UNIONS):
            path.append(part)
    return path


def _is_at(location: list[Any], pattern: list[str]) -> bool:
    return len(location) == len(pattern) and all(at in ("*", part) for part, at in zip(location, pattern, strict=True))


def _tags_at(location: list[Any]) -> str:
    section = _section_at(location[:-1]) or Recipe
    field = section.model_fields[str(location[-1])]
    return ", ".join(repr(tag) for option in _sections(field.annotation) for tag in _tag(option))


def _kind(value: Any) -> str:
    return {"NoneType": "an empty file", "list": "a list", "str": "a text"}.get(type(value).__name__, _short(value))


def _short(value: Any) -> str:
    text = _repr.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
