"""``adainf shards ls | show | cat | stats | export | serve``: one function per command, with the same name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from adainf.browse.catalog import Catalog, SampleRef, find
from adainf.browse.exporting import write_folder, write_npz
from adainf.browse.fields import as_text, near
from adainf.browse.images import decode, read_header
from adainf.browse.reader import Reader
from adainf.browse.sources import BrowseSource, IndexedSource
from adainf.browse.statistics import exact_duplicates, label_counts, quality_score, read_plan, shared_images, source_weight
from adainf.browse.terminal import preview, supports_sixel
from adainf.errors import BadInput
from adainf.pipeline.progress import Reporter

UNKNOWN = "?"
_BATCH = 256
_FILE_COLUMNS = 120
"""Width of a table that is not printed to a terminal."""


def ls(reporter: Reporter, uri: str, as_json: bool = False) -> None:
    """Print a table of the sources."""
    catalog = Catalog(uri)
    plan = read_plan(catalog)
    if as_json:
        rows = [
            {
                "source": name,
                "shards": source.shards,
                "samples": sum(source.known) if len(source.known) == source.shards else None,
                "bytes": sum(source.tar_sizes_bytes),
                "weight": source_weight(name, plan) or None,
                "quality": quality_score(name, plan) or None,
                "digest": source.digest,
            }
            for name, source in catalog.sources.items()
        ]
        print(json.dumps(rows, indent=2))
        return
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
            source_weight(name, plan),
            quality_score(name, plan),
            (source.digest or "not indexed")[:12],
        )
    if not reporter.console.is_terminal:
        reporter.console.width = _FILE_COLUMNS
    reporter.console.print(table)


def show(reporter: Reporter, uri: str, sample: str, source: str | None = None) -> None:
    """Print the metadata of one sample, with a preview if the output is a terminal."""
    chosen, ref = _find(uri, sample, source)
    columns = chosen.columns(ref.shard)
    label = int(columns.labels[ref.number])
    data = Reader().read_one(chosen, ref)
    fields = {
        "key": columns.keys[ref.number],
        "shard": chosen.locate(ref.shard),
        "number": f"{ref.number} of {len(columns)}",
        "bytes": f"{len(data):,} at offset {columns.offsets[ref.number]:,}",
        "crc32": f"{columns.crc32s[ref.number]:08x}",
        "label": "none" if label < 0 else f"{label} {chosen.classes[label] if label < len(chosen.classes) else ''}".strip(),
        "text": columns.texts[ref.number] or "none",
    }
    try:
        kind, width, height = read_header(data)
        fields["image"] = f"{kind}, {width} x {height} px"
        if sys.stdout.isatty():
            sys.stdout.write(preview(decode(data), reporter.console.width, supports_sixel(sys.stdout)) + "\n")
    except ValueError as error:
        fields["image"] = f"cannot be shown: {error}"
    for name, value in fields.items():
        reporter.result(f"{name:7} {printable(value)}")
    for name, value in near(chosen, ref).items():
        reporter.result(f"json    {printable(name)}: {printable(as_text(value))}")


def cat(reporter: Reporter, uri: str, sample: str, source: str | None = None) -> None:
    """Write the encoded image to standard output. Raises `BadInput` if that is a terminal."""
    if sys.stdout.isatty():
        raise BadInput("cannot write an image to a terminal; redirect it to a file (> image.png), or run `adainf shards show`")
    chosen, ref = _find(uri, sample, source)
    sys.stdout.buffer.write(Reader().read_one(chosen, ref))
    sys.stdout.buffer.flush()


def stats(reporter: Reporter, uri: str, source: str | None = None) -> None:
    """Print channel means, label counts and exact duplicates of every source, and across them, or of one."""
    catalog = Catalog(uri)
    reader = Reader()
    for chosen in [catalog.source(source)] if source else catalog.sources.values():
        _scan_all(chosen, reporter)
        reporter.result(f"{chosen.name}: {sum(chosen.known):,} samples in {chosen.shards:,} shards")
        split = chosen.split if isinstance(chosen, IndexedSource) else None
        if split and split.channel_means and split.channel_stds:
            moments = zip("RGB", split.channel_means, split.channel_stds, strict=True)
            reporter.result(
                "  channels  " + ", ".join(f"{name} {mean:.1f} ± {std:.1f}" for name, mean, std in moments) + " of 255"
            )
        else:
            fix = f"run `adainf shards index {uri}`" if catalog.is_folder else "index the folder"
            reporter.result(f"  channels  unknown; {fix} to measure them")
        counts = label_counts(chosen)
        if counts:
            most = max(counts.values())
            for label, count in counts.items():
                name = chosen.classes[label] if label < len(chosen.classes) else str(label)
                reporter.result(f"  {printable(name)[:24]:24} {count:>9,}  {'▇' * max(1, round(30 * count / most))}")
        else:
            reporter.result("  labels    none")
        duplicates = exact_duplicates(chosen, reader)
        reporter.result(f"  exact duplicates: {sum(len(group) - 1 for group in duplicates):,} images")
        for group in duplicates[:5]:
            keys = [chosen.columns(sample.shard).keys[sample.number] for sample in group[:6]]
            reporter.result(f"            {', '.join(map(printable, keys))}{', …' if len(group) > 6 else ''}")
    if source is None and len(catalog.sources) > 1:
        for (name, other), (count, key) in shared_images(catalog.sources, reader).items():
            reporter.result(f"{count:,} images of {name} are exact copies of images of {other} (for example {printable(key)})")


def export(reporter: Reporter, uri: str, output: str, source: str | None = None, limit: int | None = None) -> None:
    """Write a source as PNG files, in a folder per class if it has labels, or as one .npz if `output` ends so.

    Without `source` and `limit`, all splits of a shard set are written to a folder, each to one of its name, so that
    `adainf shards import` reads the same set.
    The .npz contains the arrays ``image`` (N x H x W x 3, uint8, RGB), in the format of the paper's repository, and ``label``.
    Raises `StageFailed` if a sample cannot be read, and then leaves nothing in `output`.
    """
    catalog, target = Catalog(uri), Path(output)
    chosen = catalog.source(source)
    is_npz = target.suffix == ".npz"
    entire = not (is_npz or source or limit is not None or catalog.is_run) and len(catalog.sources) > 1
    _scan_all(chosen, reporter)
    count = sum(chosen.known) if limit is None else min(limit, sum(chosen.known))
    if count < 1:
        raise BadInput(f"{chosen.name} has {sum(chosen.known)} images and --limit selects {count}; select at least one image")
    if target.exists():
        raise BadInput(f"{output} already exists; choose another --output")
    partial = target.with_name(f".{target.name}.partial")
    try:
        if is_npz:
            write_npz(chosen, count, partial, reporter)
        elif entire:
            for name, split in catalog.sources.items():
                write_folder(split, sum(split.known), partial / name, reporter)
        else:
            write_folder(chosen, count, partial, reporter)
        partial.rename(target)
    except OSError as error:
        raise BadInput(f"cannot write {output} ({error.strerror}); choose another --output") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
    if entire:
        count = sum(sum(split.known) for split in catalog.sources.values())
    reporter.info(f"export: {count:,} images of {', '.join(catalog.sources) if entire else chosen.name} in {output}")


def serve(reporter: Reporter, uri: str, host: str, port: int, no_token: bool = False) -> None:
    """Serve the web page until interrupted. Raises `BadInput` if the extra `browse` is not installed."""
    try:
        from adainf.browse.server import serve as serve_page
    except ImportError:
        raise BadInput("the web page requires Starlette and uvicorn; run pip install 'adainf[browse]'") from None
    serve_page(uri, host, port, reporter, no_token)


def printable(text: str) -> str:
    """The text without control characters, which keys and captions may contain and a terminal would execute."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _find(uri: str, sample: str, source: str | None) -> tuple[BrowseSource, SampleRef]:
    chosen = Catalog(uri).source(source)
    return chosen, find(chosen, sample)


def _scan_all(source: BrowseSource, reporter: Reporter) -> None:
    """Scan the tars without index."""
    unknown = [shard for shard, count in enumerate(source.counts) if count is None]
    with reporter.track(f"scan {source.name}", total=len(unknown)) as track:
        for shard in unknown:
            source.columns(shard)
            track.advance()
