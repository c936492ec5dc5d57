"""The layout of an image folder: which folders are splits and which are classes. What is ambiguous is refused, not guessed.

Splits are named train, val (valid, validation) and test in any case, with or without a suffix as in ``training_set``. A folder
that only wraps others (``x/x/CLASS``, ``images/``) is descended into. A split's name never becomes a class.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from adainf.recipe import FolderSplits
from adainf.sources.base import BadData

_PART = r"[_\- ]?(set|data|dataset|images?|imgs?|split)?[_\- ]?\d*"
_ROLES = {
    "train": re.compile(rf"(train|training|trn){_PART}"),
    "validation": re.compile(rf"(val|valid|validation){_PART}"),
    "test": re.compile(rf"(test|testing|eval|evaluation|holdout){_PART}"),
}
_CONTAINER = re.compile(r"images?|imgs?|pictures|photos|jpegimages|data|all|unlabell?ed|unknown", re.IGNORECASE)
"""Names of folders that hold images of any class."""
FIX = (
    "put training images into train/CLASS/ and held-out ones into test/CLASS/, or state the folders in a recipe with "
    "real.splits: {train: FOLDER, test: FOLDER}"
)


class SplitFiles(NamedTuple):
    """The images of one split."""

    folder: str
    """Prefix of their names, "" or "FOLDER/": the next part of a name is the class, if it is a folder."""
    names: list[str]

    @property
    def classes(self) -> set[str]:
        return {class_of(self, name) for name in self.names} - {""}


class Layout(NamedTuple):
    splits: dict[str, SplitFiles]
    """train, and validation and test where they exist."""
    unused: list[str]
    """Images outside the splits."""


def class_of(split: SplitFiles, name: str) -> str:
    """The class of an image by its folder; "" for none."""
    first, slash, _ = name[len(split.folder) :].partition("/")
    return first if slash else ""


def role_of(folder: str) -> str | None:
    """The split that a folder's name denotes."""
    return next((role for role, names in _ROLES.items() if names.fullmatch(folder.lower())), None)


def is_class_folder(name: str) -> bool:
    """Whether a folder of this name is always understood as a class."""
    return role_of(name) is None and not _CONTAINER.fullmatch(name)


def find_layout(
    root: Path, names: list[str], annotated: set[str], by_table: Container[str], stated: FolderSplits | None
) -> Layout:
    """The splits of the images `names` below `root`. Labels are those of a table for the images `by_table`, and for the folders
    `annotated`.

    Raises `BadData`, with the layout that was found, where it is ambiguous.
    """
    if stated is not None:
        return _stated(root, names, stated)
    top = _descend("", names, set())
    children = _children(top)
    roles = {child: role for child in children if child and (role := role_of(child)) is not None}
    prefixed = _prefixed(children)
    roles = roles or prefixed
    trains = [child for child, role in roles.items() if role == "train"]
    if not roles:
        _refuse_nested_splits(root, top)
        return Layout({"train": top}, [])
    others = [child for child in children if child and child not in roles]
    if len(trains) != 1 or len(roles) != len(set(roles.values())) or (others and len(roles) == 1):
        found = ", ".join(f"{child}/" for child in [*roles, *others][:6])
        raise BadData(f"{root / top.folder}: its folders are {found}, which may be splits or classes; {FIX}")
    found_splits = {role: SplitFiles(f"{top.folder}{child}/", children[child]) for child, role in roles.items()}
    unused = [name for child in ["", *others] for name in children.get(child, [])]
    return _select(root, found_splits, annotated, by_table, unused)


def _select(
    root: Path, found: dict[str, SplitFiles], annotated: set[str], by_table: Container[str], unused: list[str]
) -> Layout:
    """Of the held-out folders, a labelled one is the test split; test/ comes before val/ among equals."""
    train = _descend(*found["train"], set())
    _refuse_nested_splits(root, train)
    classes = train.classes
    held_out = {
        role: found[role] if found[role].folder in annotated else _descend(*found[role], classes)
        for role in ("test", "validation")
        if role in found
    }
    labelled = {
        role: split.folder in annotated or bool(split.classes & classes) or any(name in by_table for name in split.names)
        for role, split in held_out.items()
    }
    order = sorted(held_out, key=lambda role: (not labelled[role], role != "test"))
    if "validation" in held_out and held_out["validation"].folder in annotated:  # Tiny ImageNet's own test/ has no labels
        order.sort(key=lambda role: role != "validation")
    splits = {"train": train}
    if order:
        splits["test"] = held_out[order[0]]
        for role in order[1:]:
            if role == "validation" and labelled[role] == labelled[order[0]]:
                splits["validation"] = held_out[role]
            else:
                unused = unused + held_out[role].names
    return Layout(splits, unused)


def _stated(root: Path, names: list[str], stated: FolderSplits) -> Layout:
    left = list(names)
    splits: dict[str, SplitFiles] = {}
    folders = {"test": stated.test, "validation": stated.validation, "train": stated.train}
    for split, folder in folders.items():  # train last: it may contain the others
        if folder is None:
            continue
        prefix = "" if folder.strip("./") == "" else folder.strip("/").removeprefix("./") + "/"
        chosen = [name for name in left if name.startswith(prefix)]
        if not chosen:
            raise BadData(f"{root / folder}: contains no images of its own; set real.splits.{split} to a folder below {root}")
        taken = set(chosen)
        left = [name for name in left if name not in taken]
        splits[split] = SplitFiles(prefix, chosen)
    classes = splits["train"].classes
    held_out = {split: _descend(*found, classes) for split, found in splits.items() if split != "train"}
    return Layout({"train": splits["train"], **held_out}, left)


def _descend(folder: str, names: list[str], classes: set[str]) -> SplitFiles:
    """The folder below which the classes are: folders that only wrap others are left out. `classes`: those of train."""
    split = SplitFiles(folder, names)
    children = _children(split)
    if len(children) != 1 or "" in children:
        return split
    (child,) = children
    if child in classes:
        return split
    inner = SplitFiles(f"{folder}{child}/", names)
    below = _children(inner)
    if _CONTAINER.fullmatch(child) or (folder and role_of(child) is not None and role_of(child) == _last_role(folder)):
        return _descend(*inner, classes)
    if role_of(child) is not None:  # train/ without a test split, or an error
        return split
    if "" in below or classes:
        return split
    if len(below) > 1:
        return inner
    deeper = _descend(*inner, classes)
    return deeper if len(deeper.classes) > 1 or any(map(role_of, deeper.classes)) else split


def _last_role(folder: str) -> str | None:
    return role_of(folder.rstrip("/").rpartition("/")[2])


def _children(split: SplitFiles) -> dict[str, list[str]]:
    """Images by the folder next to the split's; "" for those directly in it."""
    children: dict[str, list[str]] = {}
    for name in split.names:
        children.setdefault(class_of(split, name), []).append(name)
    return children


def _prefixed(children: Iterable[str]) -> dict[str, str]:
    """Splits with a common prefix, such as seg_train and seg_test; one alone may be a class (bullet_train)."""
    found: dict[str, dict[str, str]] = {}
    for child in children:
        prefix, separator, last = child.replace("-", "_").rpartition("_")
        if separator and (role := role_of(last)):
            found.setdefault(prefix.lower(), {})[child] = role
    pairs = [roles for roles in found.values() if "train" in roles.values() and len(set(roles.values())) > 1]
    return pairs[0] if len(pairs) == 1 else {}


def _refuse_nested_splits(root: Path, split: SplitFiles) -> None:
    """Refuse held-out folders inside class folders, whose images would end up in train."""
    for folder in sorted({name.rpartition("/")[0] for name in split.names}):
        parts = f"{folder}/"[len(split.folder) :].split("/")[1:-1]
        held_out = next((part for part in parts if role_of(part) in ("validation", "test")), None)
        if held_out is not None:
            raise BadData(f"{root / folder}: is a folder {held_out}/ inside a class folder, so it may be held out; {FIX}")
