"""The smallest recipe that runs every stage, and commands as a user runs them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import canonical_json, sha256

RECIPE = """
name: tiny
cpu_threads: 1
real: {kind: digits, train_limit_images: 256}
generator:
  kind: diffusion
  steps: 30
  batch: 32
  checkpoint_every_steps: 3
  warmup_steps: 5
  unet: {channels: 8, multipliers: [1, 2], attention_below_px: 4}
  sampler: {steps: 3, batch: 16}
generate: {images: 120, shard_images: 16}
plan: {reference_images: 256}
pretrain:
  method: {kind: simclr, projector_hidden: 32, projector_out: 16}
  backbone: {name: resnet-small}
  augmentation: {flip_probability: 0}
  steps: 12
  global_batch: 32
  checkpoint_every_steps: 2
  log_every_steps: 2
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def adainf(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``adainf ARGUMENTS`` in its own process."""
    command = [sys.executable, "-m", "adainf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | environment, check=False)


def artifact_hashes(uri: str | Path) -> dict[str, str]:
    """Key → SHA-256 of all objects of a run except logs."""
    store = Run(str(uri)).store
    keys = [info.key for info in store.list() if not info.key.startswith("logs/")]
    return {key: hashlib.sha256(store.get(key)).hexdigest() for key in keys}


def forge(manifest: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest deliberately: with a valid SHA-256."""
    body = json.loads(manifest.read_bytes())
    del body["sha256"]
    change(body)
    manifest.write_bytes(canonical_json({**body, "sha256": sha256(canonical_json(body))}))


def make_older(manifest: Path) -> None:
    """Turn a manifest into one of an older version, which is another input for later stages."""
    forge(manifest, lambda body: body.update(made_by="adainf 0.0.9"))
