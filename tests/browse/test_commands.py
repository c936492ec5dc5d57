"""The terminal commands as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.browse.terminal import as_half_blocks, as_sixels
from adainf.cli import main
from adainf.errors import BAD_INPUT, OK, STAGE_FAILED
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import read_split
from tests.browse.hostile import huge_png, png, tar
from tests.shards.sets import Made, make_set


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_set(f"{tmp_path}/real", 30, 10, size_px=8)


def test_ls_and_stats_print_what_was_written(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "ls", made.uri]) == OK
    line = next(line for line in capsys.readouterr().out.splitlines() if "train" in line)
    size = sum(path.stat().st_size for path in made.path.glob("*.tar"))
    assert line.split()[:4] == ["train", "3", "30", f"{size:,}"]
    assert main(["shards", "ls", made.uri, "--json"]) == OK
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["source"], row["shards"], row["samples"], row["bytes"]) == ("train", 3, 30, size)
    assert main(["shards", "stats", made.uri]) == OK
    printed = capsys.readouterr().out
    assert f"R {made.images[..., 0].mean():.1f} ± {made.images[..., 0].std():.1f}" in printed
    assert "exact duplicates: 0 images" in printed


def test_cat_is_the_image(made: Made, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    assert main(["shards", "cat", made.uri, "000012"]) == OK
    path = tmp_path / "image.png"
    path.write_bytes(capfdbinary.readouterr().out)
    assert np.array_equal(np.asarray(Image.open(path)), made.images[12])


def test_export_keeps_pixels_and_labels(made: Made, tmp_path: Path) -> None:
    assert main(["shards", "export", made.uri, "-o", str(tmp_path / "all.npz")]) == OK
    with np.load(tmp_path / "all.npz") as arrays:
        assert np.array_equal(arrays["image"], made.images)
        assert np.array_equal(arrays["label"], made.labels)
    assert main(["shards", "export", made.uri, "-o", str(tmp_path / "folder"), "--limit", "13"]) == OK
    written = sorted((tmp_path / "folder").rglob("*.png"), key=lambda path: path.name)
    assert len(written) == 13
    for number, path in enumerate(written):
        assert int(path.parent.name) == made.labels[number]
        assert np.array_equal(np.asarray(Image.open(path)), made.images[number])
    assert main(["shards", "export", made.uri, "-o", str(tmp_path / "folder")]) == BAD_INPUT


def test_export_leaves_nothing_partial_and_nothing_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    (tars / "x.tar").write_bytes(tar({"../../escaped.png": png(), "ok.png": png(1), "big.png": huge_png()}))
    assert main(["shards", "export", str(tars), "-o", str(tmp_path / "out")]) == STAGE_FAILED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tars"]
    assert "big" in capsys.readouterr().err
    assert main(["shards", "export", str(tars), "-o", str(tmp_path / "out"), "--limit", "2"]) == OK
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["0000000.png", "0000001.png"]


def test_a_key_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tar").write_bytes(tar({"\x1b]0;owned\x07.png": png(), "b.png": png(1), "b.txt": b"\x1b[2J"}))
    assert main(["shards", "show", str(tmp_path), "0"]) == OK
    assert main(["shards", "show", str(tmp_path), "b"]) == OK
    assert main(["shards", "show", str(tmp_path), "\x1b[31m"]) == BAD_INPUT
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err


def test_no_part_of_the_browser_needs_torch() -> None:
    names = "commands app server"
    program = (
        f"import sys; [__import__(f'adainf.browse.{{name}}') for name in '{names}'.split()]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_half_blocks_contain_every_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    rows = as_half_blocks(image).split("\n")
    assert [row.count("▀") for row in rows] == [3, 3, 3]
    assert "38;2;{};{};{};48;2;{};{};{}m".format(*image[2, 1], *image[3, 1]) in rows[1]
    assert "38;2;{};{};{};49m".format(*image[4, 2]) in rows[2]


def test_sixels_reproduce_the_image() -> None:
    image = np.zeros((13, 7, 3), np.uint8)
    image[2:9, 1:5] = (255, 0, 0)
    image[10:, 3:] = (0, 255, 0)
    assert np.array_equal(_drawn(as_sixels(image)), image)


def _drawn(text: str) -> np.ndarray:
    """The image by DEC STD 070: # selects or defines a colour, $ is a carriage return, - moves down six rows."""
    body = text.removeprefix("\x1bPq").removesuffix("\x1b\\")
    raster, rest = body[1:].split("#", 1)
    width, height = (int(number) for number in raster.split(";")[2:])
    image = np.zeros((height, width, 3), np.uint8)
    colours: dict[int, np.ndarray] = {}
    top = 0
    for command in rest.split("#"):
        digits = len(command) - len(command.lstrip("0123456789;"))
        numbers = [int(number) for number in command[:digits].split(";")]
        if len(numbers) == 5:
            colours[numbers[0]] = np.round(np.array(numbers[2:]) * 255 / 100)
        column = 0
        for letter in command[digits:]:
            if letter == "$":
                column = 0
            elif letter == "-":
                top, column = top + 6, 0
            else:
                bits = ord(letter) - 63
                for row in range(6):
                    if bits >> row & 1:
                        image[top + row, column] = colours[numbers[0]]
                column += 1
    return image


@pytest.mark.parametrize(
    "classes",
    [("cat", "dog"), ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"), ("a/b", "..", "Cat", "cat"), ("images", "test")],
)
def test_an_exported_set_is_imported_as_the_same_set(tmp_path: Path, classes: tuple[str, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 2 * len(classes), 4, 4, 3), dtype=np.uint8)
    first = tmp_path / "in"
    lines = {"train": 2, "validation": 1, "test": 1}
    for split, copies in lines.items():
        rows = ["file_name,label"]
        for number in range(copies * len(classes)):
            path = first / split / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[len(split) % 6, number]).save(path)
            rows.append(f"{path.name},{classes[number % len(classes)]}")
        (first / split / "metadata.csv").write_text("\n".join(rows))
    (first / "train" / "000.txt").write_text("a caption, with a comma")
    assert main(["shards", "import", str(first), str(tmp_path / "one")]) == OK
    assert main(["shards", "export", str(tmp_path / "one"), "-o", str(tmp_path / "out")]) == OK
    assert main(["shards", "import", str(tmp_path / "out"), str(tmp_path / "two")]) == OK
    found = []
    for name in ("one", "two"):
        folder = ShardFolder.open(str(tmp_path / name))
        assert folder.shards.classes == sorted(classes, key=lambda one: (len(one), one) if one.isdigit() else (0, one))
        content = {}
        for split in folder.shards.splits:
            data = read_split(folder, split)
            texts = [text for shard in folder.split(split).shards for text in folder.index(shard).texts]
            content[split] = sorted(zip((image.tobytes() for image in data.images), data.labels, texts, strict=True))
        found.append(content)
    assert found[0].keys() == lines.keys()
    assert found[0] == found[1]
    if classes == ("cat", "dog"):
        assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["cat", "dog"]
        assert (tmp_path / "out" / "train" / "cat" / "0000000.txt").read_text() == "a caption, with a comma"


def test_stats_count_copies_across_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, numbers in {"train": (0, 1, 2), "test": (1, 2, 5)}.items():
        for number in numbers:
            path = tmp_path / "in" / split / "cat" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    assert main(["shards", "import", str(tmp_path / "in"), str(tmp_path / "set")]) == OK
    assert main(["shards", "stats", str(tmp_path / "set")]) == OK
    assert "2 images of test are exact copies of images of train (for example 000000)" in capsys.readouterr().out
