"""What commands print: warnings in one line, and results with --quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.cli import main

IMPORT = "import sys; sys.modules['simplejpeg'] = None; from adainf.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(folder / f"{number}.jpg")
    return folder


@pytest.mark.process
def test_a_warning_is_one_line_without_the_place_in_the_code(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORT, "shards", "import", str(photos), str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    assert line.startswith("adainf: warning: simplejpeg is not installed: ")


def test_quiet_commands_print_what_was_asked_for(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(tmp_path / "set")
    assert main(["shards", "import", str(photos), uri, "-q"]) == 0
    assert not capsys.readouterr().out
    for command, expected in ((["stats", uri], "exact duplicates: 0 images"), (["show", uri, "0"], "16 x 16 px")):
        assert main(["shards", *command, "-q"]) == 0
        assert expected in capsys.readouterr().out
