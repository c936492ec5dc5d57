"""``adainf shards ls | show | stats | import`` read one tar, a pattern, a folder of images and a .npz, on disks and on S3.

What they do not read they refuse in words that fit the command, with a way out.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK
from adainf.recipe import ImportedImages, Provenance, Shards
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import read_split
from adainf.sources import BadData, open_import, open_source
from adainf.sources.tar_files import find_tars
from adainf.storage import open_store
from tests.browse.hostile import png, tar

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments)``: the exit code and the output of ``adainf shards …``, whose words fit the command."""

    def call(*arguments: object) -> tuple[int, str]:
        code = main(["shards", *map(str, arguments)])
        printed = capsys.readouterr()
        assert "--run" not in printed.err
        assert "real." not in printed.err
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    return call


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URI with five tars, of one image each, and other files."""
    uri = f"{tmp_path}/data" if request.param == "folder" else f"{request.getfixturevalue('s3_env')}/{tmp_path.name}"
    store = open_store(uri)
    for number in range(5):
        store.put(f"tars/train-{number:03d}.tar", tar({f"{number}.png": png(number), f"{number}.cls": b"1"}))
    store.put("tars/val-000.tar", tar({"v.png": png(9)}))
    store.put("packed/x.tar", gzip.compress(tar({"1.png": png()})))
    store.put("packed/y.tar.gz", gzip.compress(tar({"1.png": png()})))
    store.put("table/a.parquet", b"PAR1")
    store.put("some.txt", b"text")
    return uri


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("tars/train-002.tar", [2]),
        ("tars/train-{001..003}.tar", [1, 2, 3]),
        ("tars/{train-004,train-000}.tar", [0, 4]),
        ("tars/train-*.tar", [0, 1, 2, 3, 4]),
        ("*/train-00[01].tar", [0, 1]),
        ("t{ars}/train-*.tar", None),
        ("{tars,tars}/train-{3..1}.tar", None),
        ("tars/train-{004..005}.tar", None),
        ("tars/none.tar", None),
        ("*.tar", None),
        ("tars/*/*.tar", None),
    ],
)
def test_one_tar_and_patterns(run: Run, place: str, tmp_path: Path, pattern: str, numbers: list[int] | None) -> None:
    """Their tars and no other are listed, counted, shown and imported; ``*`` does not match a slash."""
    uri = f"{place}/{pattern}"
    if numbers is None:
        for command in (["ls", uri], ["import", uri, tmp_path / "set"], ["index", uri]):
            code, printed = run(*command)
            assert (code, uri.split("/tars")[0].split("/*")[0].split("/{")[0].split("/t{")[0] in printed) == (BAD_INPUT, True)
        return
    assert f"{len(numbers)} " in run("ls", uri)[1]
    assert f"tars: {len(numbers)} samples in {len(numbers)} shards" in run("stats", uri)[1]
    assert "key     " in run("show", uri, 0)[1]
    code, printed = run("import", uri, tmp_path / "set")
    assert code == OK, printed
    images = read_split(ShardFolder.open(str(tmp_path / "set")), "train").images
    assert images[:, 0, 0, 0].tolist() == numbers
    assert len(open_source(Shards(kind="shards", path=uri)).train) == len(numbers)


def test_an_index_is_of_a_folder(run: Run, place: str) -> None:
    for pattern in ("tars/train-000.tar", "tars/train-*.tar"):
        code, printed = run("index", f"{place}/{pattern}")
        assert (code, f"a set consists of all tars of a folder; give the folder {place}/tars" in printed) == (BAD_INPUT, True)
    assert run("index", f"{place}/tars")[0] == OK
    code, printed = run("verify", f"{place}/tars/train-000.tar")
    assert (code, "give the folder of a set" in printed) == (BAD_INPUT, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("packed/x.tar", "x.tar: it is compressed (gzip), not a plain tar; decompress it"),
        ("packed/y.tar.gz", "y.tar.gz: is compressed; unpack it to an uncompressed .tar"),
        ("table/a.parquet", "a.parquet: Parquet is not read; write its images to files, or to tars with webdataset"),
        ("nowhere", ""),
        ("nowhere.npz", ""),
        ("nowhere/x.tar", ""),
    ],
)
def test_what_is_not_read_has_a_way_out(run: Run, place: str, tmp_path: Path, name: str, said: str) -> None:
    for command in (
        ["stats", f"{place}/{name}"],
        ["index", f"{place}/{name}"],
        ["import", f"{place}/{name}", tmp_path / "set"],
    ):
        code, printed = run(*command)
        expected = "give the folder" if command[0] == "index" and name.endswith(".tar") else said
        assert (code, expected in printed) == (BAD_INPUT, True), printed
        assert "; " in printed  # a fix
    if "." not in name:
        return
    with pytest.raises(BadData, match="; "):
        open_source(Shards(kind="shards", path=f"{place}/{name}"))


@pytest.mark.parametrize("name", ["packed", "table"])
def test_folders_of_what_is_not_read(run: Run, place: str, name: str) -> None:
    for command in ("ls", "index"):
        code, printed = run(command, f"{place}/{name}")
        assert (code, "is compressed; unpack" in printed or "Parquet is not read" in printed) == (BAD_INPUT, True)


@pytest.mark.parametrize(
    "uri", ["https://host/a.tar", "gs://bucket/a", "pipe:aws s3 cp s3://a/b.tar -", "s3://", "s3:///a.tar", "", "s3://*/a.tar"]
)
def test_other_addresses(run: Run, tmp_path: Path, uri: str) -> None:
    for command in (["ls", uri], ["index", uri], ["import", uri, tmp_path / "set"]):
        code, printed = run(*command)
        assert (code, "; " in printed) == (BAD_INPUT, True), printed


def test_files_in_place_of_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    np.savez(tmp_path / "a.npz", image=np.zeros((2, 3, 3, 3), np.uint8))
    for name in ("a.png", "a.npz"):
        for command in (["ls", tmp_path / name], ["index", tmp_path / name], ["verify", tmp_path / name]):
            code, printed = run(*command)
            assert (code, "is a file; " in printed) == (BAD_INPUT, True), printed
    code, printed = run("import", tmp_path / "a.png", tmp_path / "set")
    assert (code, "a.png: is a file; set SOURCE to the folder of images" in printed) == (BAD_INPUT, True)
    code, printed = run("import", tmp_path / "a.npz", tmp_path / "a.png" / "set")
    assert (code, "a.png is a file, not a folder" in printed) == (BAD_INPUT, True)
    code, printed = run("import", tmp_path / "a.npz", tmp_path / "set", "--skip")
    assert (code, "leave out --image-field" in printed) == (BAD_INPUT, True)


def test_brackets_in_the_name_of_a_file_are_not_a_pattern(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a[1]{x}"
    folder.mkdir()
    (folder / "b*.tar").write_bytes(tar({"1.png": png(7)}))
    for uri in (folder, folder / "b*.tar"):
        assert "tars: 1 samples in 1 shards" in run("stats", uri)[1]
    assert run("import", folder / "b*.tar", tmp_path / "set")[0] == OK


NAMED = {"train-0.tar": 1, "train-1.tar": 2, "val-0.tar": 3, "test-0.tar": 4}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (NAMED, {"train": [1, 2], "validation": [3], "test": [4]}),
        ({"Training/a.tar": 1, "validation/a.tar": 2}, {"train": [1], "validation": [2]}),
        ({"imagenet_train_0.tar": 1, "imagenet_testing_0.tar": 2}, {"train": [1], "test": [2]}),
        ({"test/train-0.tar": 1, "test/train-1.tar": 2}, {"train": [1, 2]}),
        ({"some-test/0.tar": 1, "some-test/1.tar": 2}, {"train": [1, 2]}),
    ],
)
def test_tars_named_by_split_are_not_mixed(
    run: Run, tmp_path: Path, names: dict[str, int], splits: dict[str, list[int]]
) -> None:
    """Held-out images never become training images: by ingest, import, and index."""
    store = open_store(f"{tmp_path}/tars")
    for name, value in names.items():
        store.put(name, tar({"1.png": png(value), "1.cls": b"0"}))
    source = open_source(Shards(kind="shards", path=f"{tmp_path}/tars"))
    for split in ("train", "validation", "test"):
        images = getattr(source, split)
        assert [int(images[n].image[0, 0, 0]) for n in range(len(images or ()))] == splits.get(split, [])
    code, printed = run("import", f"{tmp_path}/tars", tmp_path / "set")
    assert (code, run("index", f"{tmp_path}/tars")[0]) == (OK, OK), printed
    assert ("tars named train, " in printed) is (len(splits) > 1)
    for uri in (f"{tmp_path}/set", f"{tmp_path}/tars"):
        opened = ShardFolder.open(uri)
        assert {split: read_split(opened, split).images[:, 0, 0, 0].tolist() for split in opened.shards.splits} == splits


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tar", "val-0.tar", "more.tar"),
        ("val-0.tar", "test-0.tar"),
        ("train-0.tar", "val-0.tar", "train-val.tar"),
    ],
)
def test_unclear_splits_are_refused_with_the_layout(run: Run, tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        open_store(f"{tmp_path}/tars").put(name, tar({"1.png": png()}))
    for command in (["index", f"{tmp_path}/tars"], ["import", f"{tmp_path}/tars", tmp_path / "set"]):
        code, printed = run(*command)
        assert (code, "its tars are named" in printed, "give a pattern (train-*.tar)" in printed) == (BAD_INPUT, True, True)
    assert run("import", f"{tmp_path}/tars/{names[0][:3]}*-0.tar", tmp_path / "set")[0] == OK


@given(st.text(st.sampled_from("ab{},.019*?[]!-/"), max_size=14))
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
def test_any_pattern_is_tars_or_an_error(pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.tar", "b0.tar", "b1.tar", "a/b.tar"):
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).touch()
        with suppress(BadData):
            found = find_tars(f"{folder}/{pattern}.tar", "fix").tars
            assert found
            assert all(Path(folder, info.key).exists() or Path(folder, "a", info.key).exists() for info in found)


def write_images(folder: Path) -> None:
    for number, place in enumerate(
        ("train/cat/1.png", "train/dog/2.JPG", "val/cat/3.png", "train/notes.bin", "train/.hidden.png")
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(folder / place, "PNG")


def test_a_folder_of_images_on_s3(s3_env: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the set that the same folder on a disk gives; the temporary copy is gone afterwards."""
    write_images(tmp_path / "images")
    uri = f"{s3_env}/{tmp_path.name}"
    for file in (tmp_path / "images").rglob("*.*"):
        open_store(uri).put(file.relative_to(tmp_path / "images").as_posix(), file.read_bytes())
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for source, target in ((tmp_path / "images", "local"), (uri, "remote")):
        code, printed = run("import", source, tmp_path / target)
        assert code == OK, printed
    local, remote = (ShardFolder.open(str(tmp_path / target)) for target in ("local", "remote"))
    assert local.shards == remote.shards
    assert local.digest == remote.digest
    opened = open_import(
        ImportedImages(
            kind="import", format="folder", path=uri, provenance=Provenance(generator="a", trained_on="b", used_labels=False)
        )
    ).train
    assert len(opened) == 3
    del opened
    open_store(uri).put("train/dog/2.JPG", b"no image")
    code, printed = run("import", uri, tmp_path / "again")
    assert (code, f"adainf: {uri}/train/dog/2.JPG: cannot decode the image" in printed) == (BAD_INPUT, True), printed
    assert list((tmp_path / "tmp").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 0, 10))
    code, printed = run("import", uri, tmp_path / "again")
    assert (code, "set TMPDIR to a larger disk" in printed) == (BAD_INPUT, True)
