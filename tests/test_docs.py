"""What the documentation names exists: commands, make targets, benchmarks, links, anchors, recipe keys, modules."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adainf.cli.arguments import build_parser
from adainf.recipe import Recipe
from adainf.shards import Stream

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = sorted({*GUIDES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("images/*.md")})
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"", "sh", "bash", "shell", "console"}
PLACEHOLDERS = {"STAGE": "pretrain", "K/N": "0/1"}
"""Words in capitals that stand for something else than a number or a path."""
SEPARATORS = {"&&", "||", "|", ";", ">", ">>", "<", "2>", "&"}

FILES = {
    "env",
    "html",
    "json",
    "jsonl",
    "lock",
    "md",
    "npy",
    "npz",
    "pkl",
    "png",
    "py",
    "safetensors",
    "tar",
    "toml",
    "txt",
    "yaml",
}
DOMAINS = {"com", "dev", "io", "local", "org"}
REMOVED = {"plan.schedule", "plan.tiers"}
"""Recipe keys that the documentation names as removed."""
FOREIGN = {"accelerator", "labels", "metadata", "np", "numpy", "origin", "os", "socket", "threading", "torch", "torchvision"}
"""What else dotted names begin with: packages and objects of others, parts of a manifest."""
OBJECTS: dict[str, Any] = {"stream": Stream}
"""A name of an object in the examples, which may also be that of a section of a recipe."""


class Words(NamedTuple):
    where: str
    words: list[str]


def commands() -> Iterator[Words]:
    """Every command in a fence of a guide, without its environment, comment, and what follows a pipe or `&&` apart."""
    for page in GUIDES:
        for language, block in FENCE.findall(page.read_text()):
            if language not in SHELL:
                continue
            for line in block.replace("\\\n", " ").splitlines():
                yield from _commands_of(f"{page.name}: {line.strip()}", line)


def _commands_of(where: str, line: str) -> Iterator[Words]:
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a lone quote: prose, or another program's output
        return
    while words:
        end = next((at for at, word in enumerate(words) if word in SEPARATORS), len(words))
        command, words = words[:end], words[end + 1 :]
        while command and re.fullmatch(r"[A-Z_0-9]+=.*", command[0]):
            command = command[1:]
        if command:
            yield Words(where, command)


def called() -> Iterator[tuple[str, str, list[str]]]:
    """(where, module or program, arguments) of each command that is ours."""
    for where, words in commands():
        program, arguments = Path(words[0]).name, words[1:]
        if program in ("adainf", "make"):
            yield where, program, arguments
        elif program in ("accelerate", "python", "python3", "coverage") and "-m" in arguments:
            at = arguments.index("-m")
            yield where, arguments[at + 1], arguments[at + 2 :]


def plain(words: list[str]) -> list[str]:
    """With values for placeholders, and the options that `[…]` and `…` leave open left out."""
    kept = []
    for word in words:
        if word.startswith("["):
            break
        if word in ("…", "..."):
            continue
        capitals = re.fullmatch(r"[A-Z][A-Z_]*", word)
        kept.append(PLACEHOLDERS.get(word, "1" if capitals else word.replace("…", "1")))
    return kept


@cache
def cases() -> list[tuple[str, str, list[str]]]:
    return list(called())


def test_guides_have_commands() -> None:
    assert {"adainf", "make", "adainf.pretrain", "benchmarks.study"} <= {program for _, program, _ in cases()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case[0])
def test_a_command_is_one(case: tuple[str, str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    _, program, arguments = case
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in arguments if "=" not in word} <= targets
    elif program in ("adainf", "adainf.pretrain", "adainf.evaluate"):
        stage = program.split(".")[1:]
        build_parser().parse_args([*stage, *plain(arguments)])
    else:
        assert importlib.util.find_spec(program), f"no module {program}"


def spans(page: Path) -> list[str]:
    """Inline code of a page."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text()))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_commands_and_benchmarks_in_text_exist(page: Path) -> None:
    subcommands: dict[str, Any] = build_parser()._subparsers._group_actions[0].choices  # type: ignore[assignment]
    for code in spans(page):
        words = code.split()
        if words[0] == "adainf" and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            assert words[1] in subcommands, code
        for module in re.findall(r"python -m (benchmarks[.\w]*|adainf[.\w]*)", code):
            assert re.search(r"\.[A-Z]", module) or importlib.util.find_spec(module), code
        if words[0] == "make" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), code


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_paths_in_text_exist(page: Path) -> None:
    if page.name == "extending.md":
        return  # it names files that the reader creates; a test executes it
    roots = "|".join(("adainf", "benchmarks", "docs", "images", "jobs", "k8s", "recipes", "tests"))
    paths = (path for code in spans(page) if (path := re.fullmatch(rf"((?:{roots})/[\w./-]+)", code)))
    assert not [path[1] for path in paths if not re.search(r"[A-Z]{2}", path[1]) and not (ROOT / path[1]).exists()]


def test_make_test_names_folders_and_files_that_exist() -> None:
    (first,) = re.findall(r"^LONGEST_FIRST := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert all((ROOT / word).exists() for word in first.split() if not word.startswith("-"))


# ------------------------------------------------------------------------------------------------------------------ links


def anchors(page: Path) -> set[str]:
    """Of all headings, as GitHub makes them."""
    found: dict[str, int] = {}
    result = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = found[slug] = found.get(slug, -1) + 1
        result.add(f"{slug}-{number}" if number else slug)
    return result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


# ------------------------------------------------------------------------------------------------------------ recipe keys


@cache
def sections() -> dict[str, list[dict[str, Any]]]:
    """Name of a section → the schemas that it may have, wherever in a recipe it stands. `""` is the recipe."""
    schema = Recipe.model_json_schema()
    found: dict[str, list[dict[str, Any]]] = {"": [schema]}

    def objects(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            if "$ref" in part:
                yield from objects(schema["$defs"][part["$ref"].rpartition("/")[2]])
            if "properties" in part:
                yield part
            for key in ("anyOf", "oneOf", "allOf"):
                for each in part.get(key, ()):
                    yield from objects(each)
            for key in ("items", "additionalProperties"):
                yield from objects(part.get(key))

    waiting = [schema]
    while waiting:
        for name, part in waiting.pop()["properties"].items():
            for each in objects(part):
                if each not in found.setdefault(name, []):
                    found[name].append(each)
                    waiting.append(each)
    return found


def is_key(name: str) -> bool:
    section, *keys = name.split(".")
    here = sections()[section]
    for at, key in enumerate(keys):
        if not any(key in each["properties"] for each in here):
            return False
        here = sections().get(key, []) if at < len(keys) - 1 else here
    return True


def problem(name: str, is_call: bool) -> str:
    first, _, rest = name.partition(".")
    last = name.rpartition(".")[2]
    if last in FILES or last in DOMAINS or first in FOREIGN or name in REMOVED:
        return ""
    if first == "adainf":
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            return f"{name}: {error}"
        return ""
    if first in OBJECTS and (hasattr(OBJECTS[first], rest) or f"self.{rest} = " in inspect.getsource(OBJECTS[first])):
        return ""
    if first in sections():
        return "" if is_key(name) else f"{name} is not a key of a recipe"
    return "" if is_call else f"{name} is not known: correct it, or add {first!r} to FOREIGN in {Path(__file__).name}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_dotted_names_exist(page: Path) -> None:
    problems = []
    for code in spans(page):
        name = re.match(r"([a-z_]\w*(?:\.[A-Za-z_]\w*)+)(\S?)", code)
        if name and name[2] != "/":  # as in labels of Kubernetes
            problems.append(problem(name[1], name[2] == "("))
    assert not [each for each in problems if each]


def test_a_wrong_key_is_found() -> None:
    assert problem("plan.reference_images", False) == ""
    assert problem("pretrain.method.kind", False) == ""
    assert "not a key" in problem("plan.reference_image", False)
    assert "not a key" in problem("pretrain.method.king", False)
    assert "not known" in problem("plans.reference_images", False)
    assert "adainf.shard" in problem("adainf.shard", False)
