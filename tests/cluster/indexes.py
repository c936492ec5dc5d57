"""Sets of completion indexes in the format of Kubernetes: "0-2,5"."""

from __future__ import annotations

from collections.abc import Iterable


def text(indexes: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in runs)


def parse(written: str) -> set[int]:
    runs = [each.split("-") for each in written.split(",") if each]
    return {index for run in runs for index in range(int(run[0]), int(run[-1]) + 1)}
