"""The doctor detects faults of a store or a machine, names the fix, and fails only if a check fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adainf.errors import BAD_INPUT, OK
from adainf.pipeline.artifacts import Run
from tests.tiny import RECIPE, adainf, write_recipe


def checks(*arguments: str | Path, code: int, **environment: str) -> dict[str, dict[str, Any]]:
    done = adainf("doctor", "--json", *arguments, **environment)
    assert done.returncode == code, (done.stdout, done.stderr)
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_a_real_store_and_its_clock_pass_and_the_store_is_left_unchanged(s3_env: str, tmp_path: Path) -> None:
    found = checks(write_recipe(tmp_path), "--run", s3_env, code=OK)
    assert found["store"]["status"] == found["clock"]["status"] == found["recipe"]["status"] == "ok"
    assert list(Run(s3_env).store.list()) == []


def test_wrong_credentials_and_a_wrong_endpoint(s3_env: str) -> None:
    found = checks("--run", s3_env, code=BAD_INPUT, AWS_SECRET_ACCESS_KEY="wrong-secret")["store"]
    assert found["status"] == "fail"
    assert "credentials" in found["detail"] + found["fix"]
    assert "wrong-secret" not in str(found)
    found = checks("--run", s3_env, code=BAD_INPUT, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")["store"]
    assert found["status"] == "fail"
    assert "127.0.0.1:9" in found["detail"]
    assert found["fix"]


def test_a_recipe_with_an_unknown_key_and_a_reserved_variable(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPE + "nonsense: 1\n")
    done = adainf("doctor", recipe, "--run", tmp_path / "run", MASTER_ADDR="10.0.0.1")
    assert done.returncode == BAD_INPUT
    assert "adainf: doctor: environment, recipe fail" in done.stderr
    for word in ("MASTER_ADDR", "nonsense"):
        assert word in done.stdout


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    found = checks("--run", "/proc/sys/adainf", code=BAD_INPUT)["store"]  # not even by root
    assert found["status"] == "fail"
    assert "/proc/sys" in found["detail"]


def test_a_gang_pod_without_gpus(tmp_path: Path) -> None:
    found = checks(code=BAD_INPUT, ADAINF_NPROC="auto", JOB_NAME="job")
    assert found["GPU driver"]["status"] == "fail"
    assert "nvidia.com/gpu" in found["GPU driver"]["fix"]


def test_the_cache_of_a_recipe_names_mode_bytes_and_rate(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert adainf("ingest", recipe, "--run", tmp_path / "run").returncode == OK
    found = checks(recipe, "--run", tmp_path / "run", code=OK, ADAINF_CACHE=str(tmp_path / "cache"))["cache"]
    assert found["status"] == "ok"
    assert re.search(
        r"GiB of images, .* GiB free; real images are cached decoded and decoded at [\d,]+ images/s", found["detail"]
    )
