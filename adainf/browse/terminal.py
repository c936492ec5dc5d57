"""Image previews in a terminal: sixel graphics if the terminal supports them, else half blocks with two pixels each."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import TextIO

import numpy as np
from PIL import Image

from adainf.shards.format.png import Pixels

_UPPER_HALF = "▀"
_SIXEL = "4"
"""The code of sixel support in a terminal's reply to the device attributes query (DA1)."""
_COLOURS = 64
_REPLY_TIMEOUT_S = 0.3


def preview(image_HWC: Pixels, columns: int, sixel: bool) -> str:
    """The image in at most this number of columns; half blocks never enlarge it."""
    if sixel:
        return as_sixels(_scaled(image_HWC, min(8 * columns, 512), enlarge=True))
    return as_half_blocks(_scaled(image_HWC, columns, enlarge=False))


def as_half_blocks(image_HWC: Pixels) -> str:
    """Rows of ▀ in 24-bit colours: the upper pixel as foreground, the lower pixel as background."""
    height, width, _ = image_HWC.shape
    rows = []
    for top in range(0, height, 2):
        row = []
        for upper, lower in zip(image_HWC[top], image_HWC[top + 1] if top + 1 < height else [None] * width, strict=True):
            background = "49" if lower is None else "48;2;{};{};{}".format(*lower)
            row.append("\x1b[38;2;{};{};{};{}m{}".format(*upper, background, _UPPER_HALF))
        rows.append("".join(row) + "\x1b[0m")
    return "\n".join(rows)


def as_sixels(image_HWC: Pixels) -> str:
    """A sixel image with 64 colours (DEC STD 070, chapter 9): bands of six rows, one colour of a band after the other."""
    paletted = Image.fromarray(image_HWC).quantize(_COLOURS)
    colours = np.array(paletted.getpalette(), np.int64).reshape(-1, 3) * 100 // 255
    indices = np.asarray(paletted)
    height, width = indices.shape
    parts = [f'\x1bPq"1;1;{width};{height}']
    parts += ["#{};2;{};{};{}".format(number, *colour) for number, colour in enumerate(colours)]
    for top in range(0, height, 6):
        band = indices[top : top + 6]
        for colour in np.unique(band):
            bits = ((band == colour) * (1 << np.arange(len(band)))[:, None]).sum(0)
            parts.append(f"#{colour}" + "".join(chr(63 + bit) for bit in bits) + "$")
        parts.append("-")
    return "".join([*parts, "\x1b\\"])


def supports_sixel(output: TextIO) -> bool:
    """Query the terminal, if both input and output are one. ADAINF_SIXEL=1 or 0 overrides the query."""
    override = os.environ.get("ADAINF_SIXEL")
    if override is not None:
        return override == "1"
    if not (output.isatty() and sys.stdin.isatty()):
        return False
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        output.write("\x1b[c")
        output.flush()
        reply, deadline = b"", time.monotonic() + _REPLY_TIMEOUT_S
        while not reply.endswith(b"c") and (left := deadline - time.monotonic()) > 0:
            if select.select([fd], [], [], left)[0]:
                reply += os.read(fd, 64)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
    return _SIXEL in reply.decode("latin-1").strip("\x1b[?c").split(";")[1:]


def _scaled(image_HWC: Pixels, width_px: int, enlarge: bool) -> Pixels:
    height, width, _ = image_HWC.shape
    factor = width_px / width
    if factor >= 1:
        times = int(factor) if enlarge else 1
        return image_HWC.repeat(times, 0).repeat(times, 1)
    size = (max(1, width_px), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BOX))
