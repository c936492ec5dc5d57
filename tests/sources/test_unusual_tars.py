"""Unusual but valid WebDatasets: each is read as its owner means it, or refused with the sample and a way out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from adainf.browse.catalog import Catalog
from adainf.cli import main
from adainf.errors import BAD_INPUT, OK, BadInput
from adainf.recipe import ImportedImages, Provenance, Shards
from adainf.shards import open_stream
from adainf.shards.format.fields import parse_label, parse_text
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.samples import Fields, SampleScan
from adainf.shards.format.scan import InMemory
from adainf.shards.loader.read_all import read_split
from adainf.sources import BadData, open_import, open_source
from tests.browse.hostile import png

Files = list[tuple[str, bytes]]
GOOD: Files = [("a/1.png", png(1)), ("a/1.cls", b"1"), ("a/1.txt", b"one")]


def write(folder: Path, *tars: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, files in enumerate(tars):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for name, data in files:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit code and the output of ``adainf shards …``."""
    code = main(["shards", *map(str, arguments)])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out + printed.err


def read(folder: Path, **settings: Any) -> list[tuple[int, int | None, str | None]]:
    """Value, label and caption of every sample, through `open_source`."""
    images = open_source(Shards(kind="shards", path=str(folder), **settings)).train
    samples = [images[number] for number in range(len(images))]
    return [(int(sample.image[0, 0, 0]), sample.label, sample.text) for sample in samples]


def read_set(folder: Path) -> list[tuple[int, int | None, str | None]]:
    """The same of a set, through a stream."""
    opened = ShardFolder.open(str(folder))
    count = opened.split("train").images
    with open_stream({"set": str(folder)}, count, 0) as stream:
        batch = next(iter(stream))
    texts = [text for shard in opened.split("train").shards for text in opened.index(shard).texts]
    rows = sorted(zip(batch.indices.tolist(), batch.images, batch.labels.tolist(), strict=True), key=lambda row: row[0])
    return [(int(image[0, 0, 0]), None if label < 0 else label, texts[index]) for index, image, label in rows]


PREFIXED: Files = [
    (f"{n}.{field}", data)
    for n in (1, 2)
    for field, data in (("caption.txt", b"number %d" % n), ("image.png", png(n)), ("label.cls", b"%d" % n))
]
JSON: Files = [
    (f"{n}.{field}", data)
    for n in (1, 2)
    for field, data in (("jpg.png", png(n)), ("json", b'{"label": %d, "caption": " number %d ", "url": "x"}' % (n, n)))
]
TEXT: Files = [
    (f"{n}.{field}", data)
    for n in (1, 2)
    for field, data in (("cls", b"%d\n" % n), ("png", png(n)), ("text", b"number %d" % n))
]
MEANT = [(1, 1, "number 1"), (2, 2, "number 2")]
JSON_FIELDS = {"label_field": "json:label", "text_field": "json:caption"}


def options(chosen: dict[str, Any]) -> list[str]:
    return [
        part for name, value in chosen.items() for part in ("--" + name.replace("_", "-"), *([] if value is True else [value]))
    ]


@pytest.mark.parametrize(("files", "chosen"), [(PREFIXED, {}), (JSON, JSON_FIELDS), (TEXT, {})], ids=["prefix", "json", "text"])
def test_labels_and_captions_where_people_keep_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Files, chosen: dict[str, Any]
) -> None:
    """By ingest, import, and index with a stream."""
    write(tmp_path / "tars", files)
    assert read(tmp_path / "tars", **chosen) == MEANT
    code, printed = run(capsys, "import", tmp_path / "tars", tmp_path / "set", *options(chosen))
    assert (code, read_set(tmp_path / "set")) == (OK, MEANT), printed
    code, printed = run(capsys, "index", tmp_path / "tars", *options(chosen))
    assert (code, read_set(tmp_path / "tars")) == (OK, MEANT), printed
    assert "index: train 2 images (labelled, 2 with captions); 3 classes (0, 1, 2); 8 x 8 px; RGB" in printed
    assert run(capsys, "verify", tmp_path / "tars")[0] == OK


def test_what_is_not_read_is_reported_with_the_way_to_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "json", JSON)
    code, printed = run(capsys, "index", tmp_path / "json")
    assert "index: unused fields: .json" in printed
    assert "index: no labels are read; the .json has label, caption, url: choose a key with --label-field json:KEY" in printed
    write(tmp_path / "two", [("1.png", png()), ("1.fine.cls", b"1"), ("1.coarse.cls", b"0"), ("1.mp3", b"")])
    code, printed = run(capsys, "import", tmp_path / "two", tmp_path / "set")
    assert code == OK
    assert "unused fields: .coarse.cls, .fine.cls, .mp3" in printed
    assert "no labels are read, as .coarse.cls, .fine.cls may be one; choose it with --label-field coarse.cls" in printed
    assert ShardFolder.open(str(tmp_path / "set")).shards.summary is not None
    note = open_source(Shards(kind="shards", path=str(tmp_path / "json"))).findings.notes[0]
    assert note.endswith("choose a key with real.label_field: json:KEY")
    with pytest.raises(
        BadData, match=r"no sample has a value in json:class \(fields: .*keys of the first .json: label, caption"
    ):
        read(tmp_path / "json", label_field="json:class")
    assert run(capsys, "index", tmp_path / "two", "--label-field", "fine")[0] == BAD_INPUT


def test_names_of_classes_become_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path / "tars",
        [("1.png", png(1)), ("1.cls", b"dog\n"), ("2.png", png(2)), ("2.cls", "café".encode())],
        [("3.png", png(3)), ("3.cls", b"dog")],
    )
    assert run(capsys, "import", tmp_path / "tars", tmp_path / "set")[0] == OK
    opened = ShardFolder.open(str(tmp_path / "set"))
    assert (opened.shards.classes, read_split(opened, "train").labels.tolist()) == (["café", "dog"], [1, 0, 1])
    code, printed = run(capsys, "index", tmp_path / "tars")
    assert code == BAD_INPUT
    assert "sample 1: its label is 'dog', expected a class number; to number class names, copy the tars with" in printed
    assert run(capsys, "index", tmp_path / "tars", "--label-field", "none")[0] == OK
    write(tmp_path / "mixed", [("1.png", png(1)), ("1.cls", b"dog"), ("2.png", png(2)), ("2.cls", b"7")])
    with pytest.raises(BadData, match=r"some labels are numbers \(7\) and some are names \(dog\); .* real.label_field: none"):
        read(tmp_path / "mixed")


UNUSUAL: dict[str, tuple[Files, str, str, bool]] = {
    "two images": ([("b/2.jpg", png(2)), ("b/2.mask.png", png(9))], "sample b/2 has 2 images", "--image-field jpg", False),
    "no image": ([("b/2.json", b"{}"), ("b/2.cls", b"1")], "sample b/2 has 0 images", "--skip", False),
    "a label that is no number": (
        [("b/2.png", png(2)), ("b/2.cls", b"cat")],
        "sample b/2: its label is 'cat'",
        "--label-field none",
        True,
    ),
    "an enormous label": (
        [("b/2.png", png(2)), ("b/2.cls", b"1" + b"0" * 20)],
        "its .cls is 1" + "0" * 20,
        "--label-field none",
        True,
    ),
    "a label of digits without end": (
        [("b/2.png", png(2)), ("b/2.cls", b"9" * 5000)],
        "sample b/2: its .cls is '99",
        "--label-field none",
        True,
    ),
    "a Latin-1 caption": (
        [("b/2.png", png(2)), ("b/2.txt", b"caf\xe9")],
        "its .txt is not UTF-8 (at byte 3)",
        "--text-field none",
        True,
    ),
    "an enormous caption": (
        [("b/2.png", png(2)), ("b/2.txt", b"x" * 2**21)],
        "its .txt is larger than",
        "--text-field none",
        True,
    ),
    "a name that is not UTF-8": ([("b/2\udcff.png", png(2))], r"sample b/2\xff: its name is not UTF-8", "--skip", True),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_an_unusual_sample_is_refused_skipped_or_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """Refused with its name and the way out; left out with --skip, by a stream, too; and the browser shows what it can."""
    files, said, fix, shown = UNUSUAL[case]
    good_last: Files = [("c/3.png", png(3)), ("c/3.cls", b"3"), ("c/3.txt", b"three")]
    folder = write(tmp_path / "tars", [*GOOD, *files, *good_last])
    code, printed = run(capsys, "index", folder)
    assert (code, said in printed, fix in printed, "--skip" in printed) == (BAD_INPUT, True, True, True), printed
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["0.tar"]
    keys = Catalog(str(folder)).source(None).columns(0).keys
    assert len(keys) == 3 if shown or case == "two images" else len(keys) == 2
    code, printed = run(capsys, "index", folder, "--skip")
    assert (code, "index: left out 1 sample with" in printed) == (OK, True), printed
    assert read_set(folder) == [(1, 1, "one"), (3, 3, "three")]
    if case != "a label that is no number":  # to number the classes by name, all labels must be names
        assert read(folder, skip=True) == [(1, 1, "one"), (3, 3, "three")]


def test_the_field_of_the_image_chooses_among_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "tars", [("1.depth.png", png(9)), ("1.jpg", png(1)), ("2.jpg", png(2))])
    assert run(capsys, "index", folder, "--image-field", "jpg")[0] == OK
    assert [row[0] for row in read_set(folder)] == [1, 2]
    (folder / "manifest.json").unlink()
    assert run(capsys, "index", folder, "--image-field", ".JPG")[0] == OK
    assert run(capsys, "index", folder, "--image-field", " ")[0] == BAD_INPUT
    (folder / "manifest.json").unlink()
    code, printed = run(capsys, "index", folder, "--image-field", "depth.png", "--skip")  # another index of the same tars
    assert (code, [row[0] for row in read_set(folder)]) == (OK, [9]), printed
    code, printed = run(capsys, "import", folder, tmp_path / "set", "--image-field", "gif")
    assert (code, "sample 1 has no .gif (.depth.png, .jpg); correct --image-field FIELD" in printed) == (BAD_INPUT, True)
    generated = ImportedImages(
        kind="import",
        format="shards",
        path=str(folder),
        provenance=Provenance(generator="a", trained_on="b", used_labels=False),
    )
    with pytest.raises(BadInput, match=r"`adainf shards import SOURCE URI --image-field depth.png`"):
        open_import(generated)


def test_orientation_and_sixteen_bits(tmp_path: Path) -> None:
    """As in image folders: turned upright unless the recipe refuses, and 16 bits scaled where it says so."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    turned, deep = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif)
    Image.fromarray(np.full((8, 16), 65535, np.uint16)).save(deep, "PNG")
    write(tmp_path / "tars", [("1.jpg", turned.getvalue())])
    rules: list[tuple[dict[str, Any], tuple[int, ...]]] = [({}, (16, 8, 3)), ({"exif_transpose": False}, (8, 16, 3))]
    for chosen, shape in rules:
        images = open_source(Shards(kind="shards", path=str(tmp_path / "tars"), **chosen)).train
        header = images.describe(0).header
        assert header is not None
        assert (images[0].image.shape, header.orientation) == (shape, 6 if shape[0] == 16 else 1)
    write(tmp_path / "deep", [("1.png", deep.getvalue())])
    with pytest.raises(BadData, match=r"sample 1: .* a recipe scales it with real.sixteen_bit: scale"):
        read(tmp_path / "deep")
    assert read(tmp_path / "deep", sixteen_bit="scale") == [(255, None, None)]


def test_damage_of_a_set_indexed_by_rules_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the index left out stays left out where a shard is corrupt, as it is located by its index."""
    files = [
        (f"{n}.{field}", data)
        for n in range(3)
        for field, data in (("image.png", png(n)), ("mask.png", png(9)), ("label.cls", b"%d" % n))
    ]
    folder = write(tmp_path / "tars", files)
    assert run(capsys, "index", folder, "--image-field", "image.png")[0] == OK
    opened = ShardFolder.open(str(folder))
    data = bytearray((folder / "0.tar").read_bytes())
    data[opened.index(next(opened.split("train").shards)).image_offsets[1] + 60] ^= 1
    (folder / "0.tar").write_bytes(data)
    with pytest.raises(BadInput, match="SHA-256 does not match the manifest"):
        read_set(folder)
    with open_stream({"set": str(folder)}, 3, 0, damage="quarantine") as stream:
        batch = next(iter(stream))
    assert sorted(zip(batch.indices.tolist(), batch.labels.tolist(), strict=True)) == [(0, 0), (2, 2), (2, 2)]
    assert sorted(int(image[0, 0, 0]) for image in batch.images) == [0, 2, 2]


@pytest.mark.parametrize("command", ["index", "import", "stats"])
def test_files_of_a_sample_that_are_apart_name_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = write(tmp_path / "tars", [("cat/3.cls", b"3"), ("cat/1.jpg", png()), ("cat/3.jpg", png()), ("cat/1.cls", b"1")])
    code, printed = run(capsys, command, folder, *([tmp_path / "set"] if command == "import" else []))
    assert code == BAD_INPUT
    assert "0.tar: the files of sample cat/3 are apart (.cls, and after other samples .jpg): the tar is not sorted" in printed
    assert "`tar --sort=name`" in printed


def test_a_set_of_an_older_version_keeps_its_labels_and_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its index says what it holds: that ``.label.cls`` is read now does not change a stream of it."""
    folder = write(tmp_path / "tars", PREFIXED)
    assert run(capsys, "index", folder, "--label-field", "none", "--text-field", "none")[0] == OK
    assert read_set(folder) == [(1, None, None), (2, None, None)]
    manifest = (folder / "manifest.json").read_text()
    code, printed = run(capsys, "index", folder)
    assert (code, "belongs to another set; delete it to index these tars again" in printed) == (BAD_INPUT, True)
    assert (folder / "manifest.json").read_text() == manifest
    assert read_set(folder) == [(1, None, None), (2, None, None)]  # its indexes are not replaced
    assert run(capsys, "verify", folder)[0] == OK


# --------------------------------------------------------------------------------------------------------------- fuzzing

many = settings(max_examples=300, deadline=None, database=None, derandomize=True)
NAMES = st.sampled_from(["1", "2", "a/1", "é", "\udcff", "__meta__"])
FIELDS = st.sampled_from(
    ["png", "image.png", "npy", "cls", "label.cls", "txt", "b.text", "json", "JSON", "\udcfe", "x.y.z", "none"]
)
CONTENT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"3", b" 7\n", b"cat", b"{}", b'{"k": 1}', b'{"k": "\\ud800"}', b"[" * 50_000, b'{"k": 1e999, "l": NaN}', b"9" * 5000]
    ),
)


@given(
    st.lists(st.tuples(NAMES, FIELDS, CONTENT), max_size=8),
    st.tuples(*[st.sampled_from([None, "none", "cls", "json:k", "x.y.z", ":", ""])] * 3),
)
@many
def test_any_sample_is_read_or_has_a_problem(files: list[tuple[str, str, bytes]], rules: tuple[str | None, ...]) -> None:
    """Every group of files gives one result, in order, and what is returned can be written to an index."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for key, field, data in files:
            info = tarfile.TarInfo(f"{key}.{field}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    scan = SampleScan(InMemory(buffer.getvalue()), Fields(*rules), read_images=True)
    try:
        found = list(scan)
    except ValueError:
        assert len({f"{key}.{field}".lower() for key, field, _ in files}) < len(files) or len(files) > 2
        return
    for sample, data, problem in found:
        assert sample is not None or problem is not None
        if sample is not None:
            sample.key.encode()
            (sample.text or "").encode()
            str(sample.label).encode()
            assert data == buffer.getvalue()[sample.image.offset :][: sample.image.size]
        if problem is not None:
            str(problem).encode()
    for name in (*scan.fields, *scan.unused, *scan.json_keys):
        name.encode()


@given(st.binary(max_size=200), st.sampled_from(["", "k"]))
@many
def test_any_bytes_are_a_label_and_a_caption_or_an_error(data: bytes, key: str) -> None:
    for parse in (parse_label, parse_text):
        try:
            value = parse(data, key)
        except UnicodeError:
            pytest.fail("not a message for a user")
        except ValueError as error:
            value = str(error)
        str(value).encode()
