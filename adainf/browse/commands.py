"""``adainf shards ls | show | cat | stats | export | serve``: one function a command, by the command's name."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from adainf.browse.catalog import Catalog, Place, find
from adainf.browse.facts import duplicates, label_counts, plan_of, quality_in, weight_in
from adainf.browse.pictures import header, pixels
from adainf.browse.reading import Problem, Reader
from adainf.browse.sources import IndexedSource, Source
from adainf.browse.terminal import draws_sixels, preview
from adainf.errors import BadInput, StageFailed
from adainf.pipeline.progress import Reporter
from adainf.shards.format.png import encode_stored_png

UNKNOWN = "?"
_BATCH = 256
_FILE_COLUMNS = 120
"""Width of a table that goes to no terminal."""


def ls(reporter: Reporter, uri: str) -> None:
    """One line a source."""
    catalog = Catalog(uri)
    plan = plan_of(catalog)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("source")
    for name in ("shards", "samples", "bytes", "weight", "quality"):
        table.add_column(name, justify="right")
    table.add_column("digest")
    for name, source in catalog.sources.items():
        known = source.known
        complete = len(known) == source.shards
        table.add_row(
            escape(printable(name)),
            f"{source.shards:,}",
            f"{sum(known):,}" if complete else UNKNOWN,
            f"{sum(source.tar_sizes_bytes):,}",
            weight_in(name, plan),
            quality_in(name, plan),
            (source.digest or "not indexed")[:12],
        )
    if not reporter.console.is_terminal:
        reporter.console.width = _FILE_COLUMNS
    reporter.console.print(table)


def show(reporter: Reporter, uri: str, sample: str, source: str | None = None) -> None:
    """All that is known of one sample, and a preview where the output is a terminal."""
    chosen, place = _find(uri, sample, source)
    columns = chosen.columns(place.shard)
    label = int(columns.labels[place.number])
    data = Reader().one(chosen, place)
    said = {
        "key": columns.keys[place.number],
        "shard": chosen.locate(place.shard),
        "number": f"{place.number} of {len(columns)}",
        "bytes": f"{len(data):,} from {columns.offsets[place.number]:,} on",
        "crc32": f"{columns.crc32s[place.number]:08x}",
        "label": "none" if label < 0 else f"{label} {chosen.classes[label] if label < len(chosen.classes) else ''}".strip(),
        "text": columns.texts[place.number] or "none",
    }
    try:
        kind, width, height = header(data)
        said["image"] = f"{kind}, {width} x {height} px"
        if sys.stdout.isatty():
            sys.stdout.write(preview(pixels(data), reporter.console.width, draws_sixels(sys.stdout)) + "\n")
    except ValueError as error:
        said["image"] = f"cannot be shown: {error}"
    for name, value in said.items():
        reporter.info(f"{name:7} {printable(value)}")


def cat(reporter: Reporter, uri: str, sample: str, source: str | None = None) -> None:
    """The encoded image, to standard output. Raises `BadInput` where that is a terminal."""
    if sys.stdout.isatty():
        raise BadInput(
            "an image is no text for a terminal; send it to a file (> image.png) or look at it by `adainf shards show`"
        )
    chosen, place = _find(uri, sample, source)
    sys.stdout.buffer.write(Reader().one(chosen, place))
    sys.stdout.buffer.flush()


def stats(reporter: Reporter, uri: str, source: str | None = None) -> None:
    """Channel means, label histogram and copies of each source, or of one."""
    catalog = Catalog(uri)
    reader = Reader()
    for chosen in [catalog.source(source)] if source else catalog.sources.values():
        _know_all(chosen, reporter)
        reporter.info(f"{chosen.name}: {sum(chosen.known):,} samples in {chosen.shards:,} shards")
        split = chosen.split if isinstance(chosen, IndexedSource) else None
        if split and split.channel_means and split.channel_stds:
            moments = zip("RGB", split.channel_means, split.channel_stds, strict=True)
            reporter.info(
                "  channels  " + ", ".join(f"{name} {mean:.1f} ± {std:.1f}" for name, mean, std in moments) + " of 255"
            )
        else:
            reporter.info(f"  channels  not known; `adainf shards index {uri}` measures them")
        counts = label_counts(chosen)
        if counts:
            most = max(counts.values())
            for label, count in counts.items():
                name = chosen.classes[label] if label < len(chosen.classes) else str(label)
                reporter.info(f"  {printable(name)[:24]:24} {count:>9,}  {'▇' * max(1, round(30 * count / most))}")
        else:
            reporter.info("  labels    none")
        copies = duplicates(chosen, reader)
        reporter.info(f"  copies    {sum(len(group) - 1 for group in copies):,} images are byte for byte another one's")
        for group in copies[:5]:
            keys = [chosen.columns(place.shard).keys[place.number] for place in group[:6]]
            reporter.info(f"            {', '.join(map(printable, keys))}{', …' if len(group) > 6 else ''}")


def export(reporter: Reporter, uri: str, output: str, source: str | None = None, limit: int | None = None) -> None:
    """Write a source as PNG files, in folders by label where it has labels; or as one .npz, where `output` is called so.

    The .npz holds one array, ``image`` (N x H x W x 3, uint8, RGB), as the paper's repository reads it, and ``label``. Raises
    `StageFailed` where a sample cannot be read: then nothing is left in `output`.
    """
    chosen = Catalog(uri).source(source)
    _know_all(chosen, reporter)
    target = Path(output)
    count = sum(chosen.known) if limit is None else min(limit, sum(chosen.known))
    if count < 1:
        raise BadInput(f"{chosen.name} has {sum(chosen.known)} images, of which --limit takes {count}; choose at least one")
    if target.exists():
        raise BadInput(f"{output} exists already; choose another -o")
    partial = target.with_name(f".{target.name}.partial")
    try:
        if target.suffix == ".npz":
            _write_npz(chosen, count, partial, reporter)
        else:
            _write_folder(chosen, count, partial, reporter)
        partial.rename(target)
    except OSError as error:
        raise BadInput(f"{output} cannot be written ({error.strerror}); choose another -o") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
    reporter.info(f"export: {count:,} images of {chosen.name} in {output}")


def serve(reporter: Reporter, uri: str, host: str, port: int) -> None:
    """The web page, until the command is stopped. Raises `BadInput` where the extra `browse` is not installed."""
    try:
        from adainf.browse.serving import serve as serve_page
    except ImportError:
        raise BadInput("the web page needs Starlette and uvicorn; pip install 'adainf[browse]'") from None
    serve_page(uri, host, port, reporter)


def printable(text: str) -> str:
    """Keys and captions may hold anything, and a terminal obeys some of it."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _find(uri: str, sample: str, source: str | None) -> tuple[Source, Place]:
    chosen = Catalog(uri).source(source)
    return chosen, find(chosen, sample)


def _know_all(source: Source, reporter: Reporter) -> None:
    """Read the tars that have no index."""
    unknown = [shard for shard, count in enumerate(source.counts) if count is None]
    with reporter.track(f"read {source.name}", total=len(unknown)) as track:
        for shard in unknown:
            source.columns(shard)
            track.advance()


def _images(source: Source, count: int, reporter: Reporter) -> Iterator[tuple[str, int, np.ndarray]]:
    """Key, label and pixels of the first `count` samples. Raises `StageFailed`."""
    reader = Reader(cache_bytes=0)
    with reporter.track("export", total=count) as track:
        for shard, held in enumerate(source.known):
            wanted = min(held, count)
            columns = source.columns(shard)
            for first in range(0, wanted, _BATCH):
                places = [Place(shard, number) for number in range(first, min(first + _BATCH, wanted))]
                for place, data in zip(places, reader.read(source, places), strict=True):
                    key, label = columns.keys[place.number], int(columns.labels[place.number])
                    where = f"{source.locate(shard)}: sample {key}"
                    if isinstance(data, Problem):
                        raise StageFailed(f"{where}: {data.reason}; nothing was exported")
                    try:
                        yield key, label, pixels(data)
                    except ValueError as error:
                        raise StageFailed(f"{where}: {error}; nothing was exported") from None
                track.advance(len(places))
            count -= wanted


def _write_folder(source: Source, count: int, folder: Path, reporter: Reporter) -> None:
    folder.mkdir(parents=True)
    for number, (_, label, image) in enumerate(_images(source, count, reporter)):
        # Named by number: keys may hold anything, "../" and two that a disk takes for one among it.
        path = folder / (f"{label:03d}" if label >= 0 else ".") / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_stored_png(image))


def _write_npz(source: Source, count: int, path: Path, reporter: Reporter) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels: list[int] = []
    shape: tuple[int, ...] = ()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("image.npy", "w", force_zip64=True) as file:  # image by image: a set need not fit into memory
            for key, label, image in _images(source, count, reporter):
                if not shape:
                    shape = image.shape
                    described = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                    np.lib.format.write_array_header_1_0(file, described)
                if image.shape != shape:
                    raise StageFailed(f"sample {key} is {image.shape}, others are {shape}: no array; export a folder instead")
                labels.append(label)
                file.write(np.ascontiguousarray(image).tobytes())
        with archive.open("label.npy", "w") as file:
            buffer = io.BytesIO()
            np.save(buffer, np.array(labels, np.int64))
            file.write(buffer.getvalue())
