"""Types of the options' values: each parses one text, or raises `ArgumentTypeError` with what was expected."""

from __future__ import annotations

import argparse
import os
import re


def field(text: str) -> str:
    if not 0 < len(text.strip()) <= 200:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: expected a field, as jpg or label.cls")
    return text.strip()


def worker(text: str) -> tuple[int, int]:
    index, slash, count = text.rpartition("/")
    if not slash:  # in a pod of an Indexed Job
        index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"invalid value {text!r}: expected K/N with 0 <= K < N, or N where JOB_COMPLETION_INDEX is set"
        )
    return int(index), int(count)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: expected an integer >= 1")
    return int(text)


def address(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("--run is empty; give a folder or s3://bucket/prefix, or leave it out for runs/NAME")
    return text


def pixels(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: expected an integer from 1 to 4096")
    return int(text)


def job_name(text: str) -> str:
    """The name of the controller's Job."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"invalid value {text!r}: expected the name of a Job, as adainf")
    return text
