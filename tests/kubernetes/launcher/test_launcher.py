"""One child process of the launcher: exit codes, termination records, and environments that are rejected before it starts.

The child runs a short program in place of ``python -m adainf``. The launcher is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED, SUPERSEDED, AdaInfError
from adainf.kubernetes.launcher import gang
from adainf.kubernetes.launcher.env import Pod
from adainf.kubernetes.launcher.gang import Failure, exit_code_of
from adainf.kubernetes.launcher.record import TERMINATION_BYTES
from adainf.kubernetes.launcher.stop import Stop
from tests.kubernetes.launcher.pods import ROOT, below, record
from tests.tiny import RECIPE, write_recipe

PROGRAM = """
import os, sys
if "adainf" in sys.orig_argv:
    exec(os.environ["TEST_STAGE"])
    sys.stdout.flush()
    os._exit(0)
"""


def start(folder: Path, stage: str, code: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(PROGRAM)
    recipe = write_recipe(folder, RECIPE)
    command = [sys.executable, "-m", "adainf.kubernetes.launcher", stage, str(recipe), "--run", str(folder / "run")]
    pod = {"JOB_NAME": "job", "ADAINF_PROGRESS_PORT": "0", "ADAINF_TERMINATION_LOG": str(folder / "term")}
    pod |= {"PYTHONPATH": f"{folder / 'site'}:{ROOT}", "TEST_STAGE": code}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | pod | environment
    )


def ended(folder: Path, stage: str, code: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    process = start(folder, stage, code, **environment)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


FAILS = "print('adainf: a sentence; fix it', file=sys.stderr, flush=True); os._exit({})"


@pytest.mark.parametrize(
    ("code", "expected", "reason"),
    [
        ("print('hello')", OK, "done"),
        (FAILS.format(64), BAD_INPUT, "a sentence; fix it"),
        (FAILS.format(75), INTERRUPTED, "a sentence; fix it"),
        ("print('Traceback'); print('ValueError: seven', flush=True); os._exit(3)", 3, "exit code 3: ValueError: seven"),
        ("os.kill(os.getpid(), 9)", 137, "killed (137): out of memory?"),
        ("os.kill(os.getpid(), 11)", 139, "killed by SIGSEGV (139)"),
    ],
)
def test_the_pod_ends_with_the_exit_code_of_the_stage(tmp_path: Path, code: str, expected: int, reason: str) -> None:
    assert ended(tmp_path, "fit", code)[0] == expected
    left = record(tmp_path / "run", "job")
    assert (left["exit_code"], left["reason"], left["done"]) == (expected, reason, None)
    assert json.loads((tmp_path / "term").read_text()) == left


def test_output_passes_through_and_its_last_lines_fit_a_termination_log(tmp_path: Path) -> None:
    code = "[print(f'{n} ' + 'x' * 1000) for n in range(100)]; print('wrong', file=sys.stderr); print('no end', end='')"
    _, out, errors = ended(tmp_path, "fit", code)
    assert out == "".join(f"{n} {'x' * 1000}\n" for n in range(100)) + "no end"
    assert errors == "wrong\n"
    assert len(record(tmp_path / "run", "job")["lines"]) >= 19
    data = (tmp_path / "term").read_bytes()
    assert len(data) <= TERMINATION_BYTES
    assert {"no end", "wrong"} & set(json.loads(data)["lines"])


def test_processes_that_the_stage_leaves_behind_are_killed(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True)"
    code_, out, _ = ended(tmp_path, "fit", code)
    assert code_ == OK
    assert not Path(f"/proc/{int(out)}").exists()


@pytest.mark.parametrize(
    ("stage", "key"), [("generate", "generated/a/train-000000.index.json"), ("evaluate", "evaluate/none.json")]
)
def test_an_interrupted_worker_without_progress_has_failed(tmp_path: Path, stage: str, key: str) -> None:
    """Kubernetes restarts it without a limit if it ends with 75."""
    stop = "os._exit(75)"
    assert ended(tmp_path, stage, stop)[0] == 1
    leave = f"from pathlib import Path; p = Path({str(tmp_path / 'run' / key)!r}); p.parent.mkdir(parents=True); p.touch(); "
    assert ended(tmp_path, stage, leave + stop)[0] == INTERRUPTED
    assert ended(tmp_path, stage, stop)[0] == 1


def test_sigterm_is_forwarded_once_and_the_stage_is_waited_for(tmp_path: Path) -> None:
    saves = (
        "import signal, time; got = []; signal.signal(signal.SIGTERM, lambda *_: got.append(1)); print('ready', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.5); print('signals', len(got), flush=True); os._exit(75)"
    )
    process = start(tmp_path, "fit", saves)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (INTERRUPTED, "signals 1\n")


def test_a_request_for_a_checkpoint_is_forwarded_to_processes_that_handle_it(tmp_path: Path) -> None:
    saves = (
        "import signal, subprocess, time; got = []; signal.signal(signal.SIGUSR1, lambda *_: got.append(1))\n"
        "starting = subprocess.Popen(['sleep', '60']); print('ready', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "print('saved', starting.poll(), flush=True); os.kill(os.getpid(), signal.SIGTERM)"
    )
    process = start(tmp_path, "fit", saves)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR2)  # the stage would die of it
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + signal.SIGTERM, "saved None\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_before_the_stage_handles_it_is_an_interruption(tmp_path: Path, number: signal.Signals) -> None:
    """The stage is in another session: without the launcher, it would outlive a terminal that closes."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored, as under nohup, and so is it by the launcher")
    process = start(tmp_path, "fit", "import time; print('ready', flush=True); time.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(30) == INTERRUPTED
    assert below(process.pid) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MASTER_ADDR": "10.0.0.1", "WORLD_SIZE": "2"}, "MASTER_ADDR, WORLD_SIZE are set in the pod's environment"),
        ({"ADAINF_NNODES": "two"}, "ADAINF_NNODES is 'two', but must be an integer of at least 1"),
        ({"ADAINF_NNODES": "2"}, "JOB_COMPLETION_INDEX is not set"),
        ({"ADAINF_NNODES": "2", "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX is 2, but ADAINF_NNODES is 2"),
        ({"ADAINF_NPROC": "0"}, "ADAINF_NPROC is '0'"),
        ({"ADAINF_NPROC": "auto", "CUDA_VISIBLE_DEVICES": ""}, "torch sees no GPU here"),
    ],
)
def test_an_invalid_environment_is_bad_input(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    code, out, errors = ended(tmp_path, "fit", "print('started')", **environment)
    assert (code, out) == (BAD_INPUT, "")
    assert words in errors
    assert words in record(tmp_path / "run", "job", int(environment.get("JOB_COMPLETION_INDEX", 0)))["reason"]


@pytest.mark.parametrize(
    ("codes", "stopped", "expected"),
    [
        ([(1, 100), (64, 100)], False, BAD_INPUT),
        ([(1, 100), (-15, 100), (66, 101)], False, SUPERSEDED),
        ([(65, 100), (75, 100)], False, STAGE_FAILED),
        ([(75, 100), (-9, 130)], False, INTERRUPTED),  # one saved, another hung and was killed by elastic
        ([(-9, 100), (75, 100)], False, 137),  # elastic stopped the other: none saved
        ([(1, 100), (-9, 100)], False, 137),  # the other failed because of the killed one
        ([(1, 100), (-9, 130)], False, 1),  # elastic killed one that hung
        ([(1, 100), (75, 100)], False, 1),
        ([(1, 100), (75, 100)], True, INTERRUPTED),
        ([(-15, 100)], True, INTERRUPTED),
        ([(-11, 100), (-15, 100)], False, 139),
        ([(3, 100)], False, 3),
    ],
)
def test_exit_code_of_several_processes(codes: list[tuple[int, int]], stopped: bool, expected: int) -> None:
    assert exit_code_of([Failure(*each) for each in codes], stopped) == expected


def test_a_first_pod_that_does_not_resolve_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("adainf.kubernetes.launcher.gang.socket.getaddrinfo", unknown)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    handlers = [signal.getsignal(number) for number in numbers]
    environment = {"JOB_NAME": "job", "JOB_COMPLETION_INDEX": "1", "ADAINF_NNODES": "2", "POD_NAMESPACE": "ns"}
    try:
        with pytest.raises(AdaInfError, match=r"^job-0\.adainf-workers\.ns\.svc\.cluster\.local does not resolve") as found:
            gang.wait_for_master(Pod.here("fit", environment), Stop(), timeout_s=0)
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    for word in ("Service adainf-workers", "selector", "subdomain", "ADAINF_CLUSTER_DOMAIN"):
        assert word in str(found.value)


def test_the_service_of_a_named_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `adainf render --name cifar` sets it."""
    variables = {"ADAINF_NNODES": "2", "JOB_COMPLETION_INDEX": "1", "JOB_NAME": "cifar-fit-ab12-1", "POD_NAMESPACE": "ns"}
    named = Pod.here("fit", {**variables, "ADAINF_SERVICE": "cifar-workers"})
    assert named.master == "cifar-fit-ab12-1-0.cifar-workers.ns.svc.cluster.local"
    assert (
        Pod.here("fit", variables).service == Pod.here("fit", {**variables, "ADAINF_SERVICE": ""}).service == "adainf-workers"
    )
