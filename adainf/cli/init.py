"""``adainf init FOLDER|URI``: inspect users' images and write a short recipe that runs. Imports no torch."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from adainf.cli.starter import Found, Line, choose
from adainf.errors import BadInput
from adainf.pipeline.load_recipe import parse_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Real, WithoutTestSplit
from adainf.shards.format.fields import is_utf8
from adainf.sources import SourceImages, kind_of, open_source
from adainf.sources.importing import in_words_of_the_command

_EXAMINED = 1000
"""Images whose headers are read, evenly over all."""
_ARCHIVES = {
    "cifar-10-batches-py": "cifar10",
    "cifar-10-batches-bin": "cifar10",
    "cifar-100-python": "cifar100",
    "cifar-100-binary": "cifar100",
    "train-images-idx3-ubyte.gz": "fashion-mnist",
}
"""An entry of the folder → the data source that reads it."""


def init(reporter: Reporter, uri: str, output: str, method: str = "simclr", gpu: bool | None = None) -> None:
    """Write a recipe for the images at `uri` to the file `output`, and print what was understood and chosen.

    `gpu`: write sizes for a GPU; None where this machine has one. Raises `BadInput` for data that `ingest` would refuse, for
    too few images, and where `output` exists with other content.
    """
    text, lines, found = recipe_for(uri, method, _has_gpu() if gpu is None else gpu)
    parse_recipe(text, output)
    if output == "-":
        print(text, end="")
        return
    _write(Path(output), text)
    reporter.info(f"init: {_describe(found)}")
    for line in lines:
        if line.reason:
            reporter.info(f"  {line.as_yaml().strip()}")
    reporter.info(f"init: wrote {output}; next: adainf run {output}")


def recipe_for(uri: str, method: str, gpu: bool) -> tuple[str, list[Line], Found]:
    """The recipe as text, its lines, and what was found at `uri`. Raises as `init` does."""
    if not is_utf8(uri):
        raise BadInput(f"the name {uri!a} is not UTF-8, which a recipe must be; rename the folder")
    found = inspect(uri)
    lines = choose(found, _name(uri), method, gpu, threads=len(os.sched_getaffinity(0)))
    head = f"# Written by `adainf init`: {_describe(found)}.\n# `adainf recipe schema` describes every setting.\n"
    return head + "".join(f"{line.as_yaml()}\n" for line in lines), lines, found


def inspect(uri: str) -> Found:
    """What the images at `uri` are: their kind, number, labels, and the sizes of up to 1,000 of them."""
    if uri.startswith("~"):
        uri = str(Path(uri).expanduser())
    with in_words_of_the_command("FOLDER"):
        real = _kind_of(uri)
        source = open_source(real)
        count = len(source.train)
        chosen = sorted({position * count // _EXAMINED for position in range(_EXAMINED)}) if count > _EXAMINED else range(count)
        described = [source.train.describe(position) for position in chosen]
    sizes, modes = [], set()
    for one in described:
        if one.header is not None:
            turned = one.header.orientation >= 5
            height, width = one.header.height_px, one.header.width_px
            sizes.append((width, height) if turned else (height, width))
            modes.add(one.header.mode)
    if count and not sizes:
        with in_words_of_the_command("FOLDER"):
            height, width, _ = source.train[0].image.shape  # raises the reason why it cannot be read
        sizes.append((height, width))
    return Found(
        uri=uri,
        real=_settings(real),
        images=count,
        validation=_count(source.validation),
        test=_count(source.test),
        may_carve_test=isinstance(real, WithoutTestSplit),
        classes=source.classes,
        labelled=any(one.label is not None for one in described),
        sizes=sizes,
        modes=modes,
    )


def _count(split: SourceImages | None) -> int:
    return 0 if split is None else len(split)


def _kind_of(uri: str) -> Real:
    folder = None if uri.startswith("s3://") else Path(uri)
    if folder is not None and folder.is_dir():
        for entry, kind in _ARCHIVES.items():
            if (folder / entry).exists():
                return TypeAdapter[Real](Real).validate_python({"kind": kind, "path": uri})
    return kind_of(uri)


def _settings(real: Real) -> dict[str, Any]:
    return {name: value for name in ("kind", "path") if (value := getattr(real, name, None)) is not None}


def _describe(found: Found) -> str:
    kinds = len(found.classes)
    labels = f"{kinds:,} class{'es' * (kinds != 1)}" if found.labelled else "no labels"
    shapes = sorted(set(found.sizes))
    shape = f"{shapes[0][0]} x {shapes[0][1]} px" if len(shapes) == 1 else f"{len(shapes):,} sizes"
    own = "".join(f", {count:,} {name}" for name, count in (("validation", found.validation), ("test", found.test)) if count)
    return f"{found.images:,}{' training' if own else ''} images{own} ({labels}, {shape})"


def _name(uri: str) -> str:
    """The name of the run: the last part of the URI, as far as a name allows it."""
    last = uri.rstrip("/").rpartition("/")[2] if "://" in uri else Path(uri).expanduser().resolve().name
    stem = re.sub(r"\.(npz|tar)$|[{*?\[].*", "", last)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "images"


def _has_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA that this process may use. Does not import torch, which takes seconds."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def _write(path: Path, text: str) -> None:
    try:
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise BadInput(f"{path} exists and is another recipe; choose another file with -o, or remove it")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}); choose another file with -o") from None
