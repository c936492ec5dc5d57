"""Indexes for other readers describe the tars as those readers' own tools do."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK
from adainf.shards import open_stream
from adainf.shards.format.folder import ShardFolder
from tests.shards.sets import make_set, take


def write_tar(path: Path, keys: list[str]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG")
    with webdataset.TarWriter(str(path)) as writer:
        for number, key in enumerate(keys):
            writer.write({"__key__": key, "jpg": buffer.getvalue(), "cls": number})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tars of other people, indexed by the command; and a set of our writer in `ours`."""
    (tmp_path / "theirs").mkdir()
    for shard in range(2):
        write_tar(tmp_path / "theirs" / f"{shard}.tar", [f"sub/{shard}-{number}" for number in range(3)])
    make_set(f"{tmp_path}/ours", 5, 3)
    return tmp_path


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_dali_index(folder: Path, name: str) -> None:
    """Columns as in DALI's tools/wds2idx.py: per sample EXTENSION OFFSET SIZE NAME of each file."""
    assert main(["shards", "index", str(folder / name), "--as", "dali"]) == OK
    for path in sorted((folder / name).glob("*.tar")):
        head, *lines = path.with_suffix(".idx").read_text().splitlines()
        with tarfile.open(path) as tar:
            files = [[str(m.offset_data), str(m.size), m.name] for m in tar.getmembers()]
        assert head == f"v1.2 {len(files) // 2}"
        columns = [line.split(" ") for line in lines]
        assert [row[at + 1 : at + 4] for row in columns for at in (0, 4)] == files
        assert all(row[at] == row[at + 3].rpartition("/")[2].partition(".")[2] for row in columns for at in (0, 4))


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_webshart_index(folder: Path, name: str) -> None:
    assert main(["shards", "index", str(folder / name), "--as", "webshart"]) == OK
    for path in sorted((folder / name).glob("*.tar")):
        found, data = json.loads(path.with_suffix(".json").read_text()), path.read_bytes()
        assert (found["filesize"], found["hash_lfs"]) == (len(data), hashlib.sha256(data).hexdigest())
        with tarfile.open(path) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        assert found["files"].keys() == contents.keys()
        for file, place in found["files"].items():
            content = data[place["offset"] : place["offset"] + place["size"]]
            assert content == contents[file]
            assert hashlib.sha256(content).hexdigest() == place["sha256"]


def test_a_set_stays_as_it_is(folder: Path) -> None:
    before = ShardFolder.open(str(folder / "ours")).digest
    for format_ in ("dali", "webshart"):
        assert main(["shards", "index", str(folder / "ours"), "--as", format_]) == OK
    assert ShardFolder.open(str(folder / "ours")).digest == before
    assert len(take(open_stream({"all": str(folder / "ours")}, 3, 0), 2)) == 2
    assert main(["shards", "verify", str(folder / "ours")]) == OK


def test_what_an_index_cannot_hold_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(folder / "theirs" / "2.tar", ["with space"])
    assert main(["shards", "index", str(folder / "theirs"), "--as", "dali"]) == BAD_INPUT
    assert "2.tar: the name 'with space.cls' contains a space" in capsys.readouterr().err
    assert not (folder / "theirs" / "2.idx").exists()
    data = bytearray((folder / "ours" / "train-000000.tar").read_bytes())
    data[700] ^= 1
    (folder / "ours" / "train-000000.tar").write_bytes(data)
    assert main(["shards", "index", str(folder / "ours"), "--as", "webshart"]) == BAD_INPUT
    assert "train-000000.tar" in capsys.readouterr().err
    (folder / "ours" / "train-000001.json").write_text("{}")
    assert main(["shards", "index", str(folder / "ours"), "--as", "webshart"]) == BAD_INPUT
    assert (folder / "ours" / "train-000001.json").read_text() == "{}"
