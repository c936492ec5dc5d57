"""Shuffling and the exactness of the mixture, by ids alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks import counting
from benchmarks.common import Bench, short, table
from benchmarks.counting import MANY_RANKS, SHARD, SHARDS
from benchmarks.data import once, write_ours_manifest

WORLDS = (1, 2, 3, 4, 5, 6, 7, 8, 12)
EXACT_BATCH = 1024


def shuffling(bench: Bench) -> None:
    """``same_shard_ratio_*``: how much likelier than in a whole permutation two samples of a batch share a shard."""
    folder, rows = _manifests(bench), []
    for side in bench.having("shard_numbers"):
        for variant, note in side.module.SHUFFLES.items():
            job = bench.generic(side, counting, "same_shard", variant=variant, folder=str(folder))
            for repeats in bench.interleave({variant: job}, 1).values():
                bench.figures[side.figure(f"same_shard_ratio_{variant}")] = repeats[0]["ratio"]
                rows.append((side.name, note, f"{100 * repeats[0]['share']:.2f} %", short(repeats[0]["ratio"])))
    title = f"P(two samples of a batch of 512 share a shard), {SHARDS} shards of {SHARD}; a whole permutation has 1.00 %"
    table(title, ("side", "shuffle", "P", "ratio"), rows)


def exactness(bench: Bench) -> None:
    """``real_per_batch_*`` and ``real_off_per_rank_world_*``: real samples in batches of 1024 at a share of 1/3."""
    folder, batches = _manifests(bench), bench.pick(20, 500)
    whole, ranks = [], []
    for side in bench.having("real_counts"):
        arguments = {"folder": str(folder), "worlds": WORLDS, "batches": batches, "batch": EXACT_BATCH}
        for repeats in bench.interleave({"": bench.generic(side, counting, "exactness", **arguments)}, 1).values():
            values = repeats[0]
            bench.figures |= {side.figure(f"real_per_batch_{what}"): values[what] for what in ("min", "max", "sd")}
            bench.figures |= {side.figure(f"real_off_per_rank_world_{world}"): values[f"off_{world}"] for world in WORLDS}
            whole.append((side.name, short(values["min"]), short(values["max"]), f"{values['sd']:.2f}"))
            ranks.append((side.name, *(f"{values[f'least_{world}']:.0f}..{values[f'most_{world}']:.0f}" for world in WORLDS)))
    title = f"Real samples in {batches} global batches of {EXACT_BATCH} over {MANY_RANKS} ranks, 341.33 wanted"
    table(title, ("side", "min", "max", "sd"), whole)
    wanted = ("wanted", *(short(EXACT_BATCH // world / 3) for world in WORLDS))
    table("The same by rank, least..most, by number of ranks", ("side", *map(str, WORLDS)), [wanted, *ranks] if ranks else [])


def _manifests(bench: Bench) -> Path:
    """Our sets of 5,000 real and 100,000 generated images, without the shards: ids are all that is asked for."""

    def write(to: Path) -> None:
        for source, shards in (("real", 5), ("generated", SHARDS)):
            write_ours_manifest(str(to / source), shards, SHARD)

    folder = bench.data / "ids"
    bench.attempt("our manifests", once, folder, write)
    return folder
