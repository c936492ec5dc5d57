"""``adainf ls | gc | compare``: the tables about several runs. Without ``--json`` they fit a terminal of 80 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from adainf.errors import BadInput
from adainf.pipeline.inventory import Garbage, find_garbage, remove, require_runs, size_text
from adainf.pipeline.progress import Reporter
from adainf.recipe import Arm


def ls(reporter: Reporter, uri: str, as_json: bool) -> None:
    """List the runs at `uri` and their variants. Raises `BadInput` where there is none."""
    found = require_runs(uri)
    if as_json:
        print(json.dumps([listed.as_json() for listed in found], indent=2))
        return
    rows = []
    for listed in found:
        done = listed.committed
        state = "report" if "report" in done else f"{len(done)} finished"
        if listed.unfinished:
            state += f", {len(listed.unfinished)} unfinished"
        trained = {name.split("/")[1] for name in done if name.startswith("pretrain/")}
        arms = ", ".join(arm for arm in get_args(Arm) if arm in trained)
        rows.append((listed.uri, state, arms or "–", size_text(listed.size_bytes), size_text(listed.shared_bytes)))
    _print(reporter, ("run", "state", "arms", ">size", ">of it linked"), rows)


def gc(reporter: Reporter, uri: str, unfinished: bool, complete: bool, delete: bool, as_json: bool) -> None:
    """List what can be deleted at `uri`, and delete it if `delete`. Raises `BadInput` where there is no run."""
    found = require_runs(uri)
    if complete and found[0].uri != (uri.rstrip("/") or "/"):
        raise BadInput(f"{uri} is not a run, and --all deletes one run with its variants; give {found[0].uri}")
    garbage: list[Garbage] = []
    for listed in reversed(found):  # variants first
        garbage += [remove(listed)] if complete else find_garbage(listed, unfinished)
    freed = sum(one.size_bytes for one in garbage)
    if delete:
        for one in garbage:
            one.delete()
    if as_json:
        print(json.dumps({"deleted": delete, "freed_bytes": freed, "garbage": [one.as_json() for one in garbage]}, indent=2))
        return
    rows = [(one.run.uri, one.name or "–", one.reason, f"{len(one.objects):,}", size_text(one.size_bytes)) for one in garbage]
    if rows:
        _print(reporter, ("run", "artifact", "what", ">objects", ">size"), rows)
    what = "deleted" if delete else "would be deleted"
    reporter.result(f"gc: {size_text(freed)} {what}" + ("" if delete or not garbage else "; --delete deletes it"))


def compare(reporter: Reporter, uris: Sequence[str], as_json: bool) -> None:
    """Print the settings in which runs differ, and the differences of their arms; of one run, against its variants."""
    from adainf.evaluation.accuracy import accuracy_text, digits_for, percent
    from adainf.report import compare_runs as compared  # imports numpy and, for the intervals, parts that ls need not wait for
    from adainf.report.table import signed

    if len(uris) == 1:
        uris = [listed.uri for listed in require_runs(uris[0])]
    if len(set(uris)) < 2:
        raise BadInput(
            f"{uris[0]} has no variant, so there is nothing to compare; give two runs, or `adainf run … --set` first"
        )
    runs = [compared.read_run(uri) for uri in dict.fromkeys(uris)]
    found = compared.differences(runs)
    if as_json:
        print(json.dumps(compared.as_json(runs, found), indent=2))
        return
    names = [chr(ord("A") + number) if number < 26 else str(number) for number in range(len(runs))]
    by_uri = dict(zip([run.uri for run in runs], names, strict=True))
    for uri, name in by_uri.items():
        reporter.info(f"{name}  {uri}")
    settings = [(path, *map(_shown, values)) for path, values in compared.differing_settings(runs).items()]
    if settings:
        _print(reporter, ("setting", *names), settings)
    else:
        reporter.info("compare: no setting differs")
    rows = []
    for one in found:
        digits = digits_for(one.test_images)
        change = "–"
        if one.comparison is not None:
            change = f"{signed(one.comparison.difference, digits)} ± {percent(one.comparison.margin, digits)}"
            change += "" if one.is_paired else " (not paired)"
        rows.append((one.arm, by_uri[one.uri], accuracy_text(one.accuracy, digits), change))
    if not rows:
        reporter.info("compare: no arm was probed (no labels, or evaluate has not run), so no accuracies are compared")
        return
    _print(reporter, ("arm", "run", ">linear probe %", f">points against {names[0]}"), rows)
    reporter.info(
        "compare: ± is half of the 95 % interval of the difference, paired by test image and seed where both runs have the "
        "same real images"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _print(reporter: Reporter, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a column whose name starts with > is right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: names may contain brackets
    if not reporter.console.is_terminal:
        reporter.console.width = max(80, 4 + sum(max(len(row[n]) for row in (columns, *rows)) + 1 for n in range(len(columns))))
    reporter.console.print(table)
