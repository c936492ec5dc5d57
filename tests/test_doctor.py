"""The doctor finds what is wrong with a store or a machine, says the mend, and fails only where something does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adainf.errors import BAD_INPUT, OK
from adainf.pipeline.artifacts import Run
from tests.tiny import RECIPE, adainf, write_recipe


def lines(*arguments: str | Path, code: int, **environment: str) -> dict[str, dict[str, Any]]:
    done = adainf("doctor", "--json", *arguments, **environment)
    assert done.returncode == code, (done.stdout, done.stderr)
    return {line["what"]: line for line in json.loads(done.stdout)}


def test_a_real_store_with_its_clock_is_well_and_left_as_it_was(s3_env: str, tmp_path: Path) -> None:
    found = lines(write_recipe(tmp_path), "--run", s3_env, code=OK)
    assert found["store"]["status"] == found["clock"]["status"] == found["recipe"]["status"] == "ok"
    assert list(Run(s3_env).store.list()) == []


def test_wrong_credentials_and_a_wrong_endpoint(s3_env: str) -> None:
    found = lines("--run", s3_env, code=BAD_INPUT, AWS_SECRET_ACCESS_KEY="wrong-secret")["store"]
    assert found["status"] == "fail"
    assert "credentials" in found["found"] + found["mend"]
    assert "wrong-secret" not in str(found)
    found = lines("--run", s3_env, code=BAD_INPUT, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")["store"]
    assert found["status"] == "fail"
    assert "127.0.0.1:9" in found["found"]
    assert found["mend"]


def test_a_recipe_with_an_unknown_key_and_a_variable_that_is_the_launchers(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPE + "nonsense: 1\n")
    done = adainf("doctor", recipe, "--run", tmp_path / "run", MASTER_ADDR="10.0.0.1")
    assert done.returncode == BAD_INPUT
    assert "adainf: doctor: environment, recipe fail" in done.stderr
    for word in ("MASTER_ADDR", "nonsense"):
        assert word in done.stdout


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    found = lines("--run", "/proc/sys/adainf", code=BAD_INPUT)["store"]  # not even by root
    assert found["status"] == "fail"
    assert "/proc/sys" in found["found"]


def test_a_gang_pod_without_gpus(tmp_path: Path) -> None:
    found = lines(code=BAD_INPUT, ADAINF_NPROC="auto", JOB_NAME="job")
    assert found["GPU driver"]["status"] == "fail"
    assert "nvidia.com/gpu" in found["GPU driver"]["mend"]
