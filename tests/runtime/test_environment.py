"""Nothing in the environment changes a result: each variable that accelerate reads is refused or has no effect."""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Iterator
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from adainf.cli import main
from adainf.errors import BAD_INPUT, OK, BadInput
from adainf.pretraining.loop import make_accelerator
from adainf.recipe import Pretrain
from adainf.runtime import distributed
from adainf.runtime.determinism import prepare
from adainf.runtime.environment import (
    ACCELERATE_DETAILS,
    ACCELERATE_FLAGS,
    ACCELERATE_SWITCHES,
    check_accelerate,
    check_compiler,
)
from tests.tiny import RECIPE, adainf, write_recipe

LAUNCHERS = """LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT MPI_LOCALNRANKS MPI_LOCALRANKID MV2_COMM_WORLD_LOCAL_RANK
MV2_COMM_WORLD_LOCAL_SIZE MV2_COMM_WORLD_RANK MV2_COMM_WORLD_SIZE NODE_RANK NPROC OMPI_COMM_WORLD_LOCAL_RANK
OMPI_COMM_WORLD_LOCAL_SIZE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE PMI_RANK PMI_SIZE RANK WORLD_SIZE OMP_NUM_THREADS"""
"""Set by launchers; the processes of a stage."""
DEVICES = "ACCELERATE_TORCH_DEVICE NCCL_IB_DISABLE NCCL_P2P_DISABLE PJRT_DEVICE PT_HPU_LAZY_MODE TPU_NAME"
UNUSED = """ACCELERATE_ALLOW_CP_STANDALONE ACCELERATE_BYPASS_DEVICE_MAP ACCELERATE_CONFIG_DS_FIELDS ACCELERATE_DEBUG_RDV_FILE
ACCELERATE_DOWNCAST_BF16 ACCELERATE_ENABLE_RICH ACCELERATE_GRADIENT_CLIPPING ACCELERATE_INIT_INCLUDE_BUFFERS
ACCELERATE_LOG_LEVEL AWS_ACCESS_KEY_ID AWS_PROFILE CLEARML_PROJECT CLEARML_TASK HF_HOME MLFLOW_EXPERIMENT_NAME
MLFLOW_NESTED_RUN MLFLOW_RUN_ID MLFLOW_TAGS XDG_CACHE_HOME systemdrive"""
"""Log levels, trackers, and parts of accelerate that the product does not use: DeepSpeed, loading of large models, TPUs."""

CLASSIFIED = {*ACCELERATE_SWITCHES, *ACCELERATE_FLAGS, "ACCELERATE_MIXED_PRECISION", *f"{LAUNCHERS} {DEVICES} {UNUSED}".split()}
_READERS = ("get", "getenv", "pop", "parse_flag_from_env", "parse_choice_from_env", "get_int_from_env")


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """accelerate keeps its settings in class attributes."""
    before = dict(os.environ)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.clear()
    os.environ.update(before)


def variables(path: Path) -> set[str]:
    """The environment variables that a module reads: constants, and ``prefix + constant``."""
    tree = ast.parse(path.read_text())
    prefixes = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if any(isinstance(target, ast.Name) and "prefix" in target.id for target in node.targets)
    }

    def names(node: ast.expr) -> set[str]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.List | ast.Tuple):
            return set().union(*map(names, node.elts))
        if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
            return {prefix + str(node.right.value) for prefix in prefixes}
        return set()

    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            if called.split(".")[-1] in _READERS and ("environ" in called or "_env" in called or "getenv" in called):
                found |= names(node.args[0])
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ" and isinstance(node.ctx, ast.Load):
            found |= names(node.slice)
        elif isinstance(node, ast.Compare) and "os.environ" in map(ast.unparse, node.comparators):
            found |= names(node.left)
    return found


def accelerates_variables() -> set[str]:
    root = Path(accelerate.__file__).parent
    return set().union(*(variables(path) for path in root.rglob("*.py") if "test_utils" not in path.parts))


def test_each_variable_that_accelerate_reads_is_classified() -> None:
    """Fails for a version of accelerate that reads another variable: decide in `runtime.environment` what it may change."""
    found = accelerates_variables()
    assert {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "FSDP_VERSION", "MEGATRON_LM_TP_DEGREE", "PMI_SIZE"} <= found
    new = {name for name in found if name not in CLASSIFIED and not name.startswith(ACCELERATE_DETAILS)}
    assert not new


def state_of(accelerator: Accelerator) -> dict[str, object]:
    """Everything in an accelerator that training depends on."""
    state, gradients = accelerator.state, accelerator.gradient_state
    return {
        "type": accelerator.distributed_type,
        "device": accelerator.device,
        "processes": accelerator.num_processes,
        "precision": (accelerator.mixed_precision, accelerator.native_amp, accelerator.scaler),
        "fp8": (accelerator.fp8_enabled, accelerator.fp8_backend, accelerator.has_fp8_handler),
        "gradients": (gradients.num_steps, gradients.sync_with_dataloader, dict(gradients.plugin_kwargs)),
        "dynamo": vars(state.dynamo_plugin),
        "plugins": {name: value for name, value in vars(state).items() if "plugin" in name and name != "dynamo_plugin"},
        "parallelism": accelerator.parallelism_config,
        "loaders": vars(accelerator.dataloader_config),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


@pytest.mark.parametrize("value", ["true", "4", "inductor", "TE", ""])
def test_no_value_of_any_variable_changes_the_accelerator(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = state_of(make_accelerator(Pretrain()))
    names = accelerates_variables() - set(f"{LAUNCHERS} {DEVICES}".split())
    assert len(names) > 100
    refused = set()
    for name in sorted(names):
        AcceleratorState._reset_state(reset_partial_state=True)
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            try:
                made = make_accelerator(Pretrain())
            except BadInput as error:
                refused.add(str(error).split(" is ")[0])
                continue
            assert state_of(made) == expected, name
    if value == "4":
        assert refused >= {*ACCELERATE_SWITCHES, *ACCELERATE_FLAGS, "ACCELERATE_MIXED_PRECISION"}


UNREADABLE = {
    "ACCELERATE_USE_CPU": "",
    "ACCELERATE_CPU_AFFINITY": "True ",
    "FORK_LAUNCHED": "maybe",
    "USE_TORCH_XLA": " no",
    "ACCELERATE_TORCH_DEVICE": "gpu0",
    "ACCELERATE_LOG_LEVEL": "loud",
    "RANK": "x",
    "MASTER_PORT": "70000",
}


def test_a_value_that_accelerate_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in UNREADABLE.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(BadInput, match=f"{name} is '{value}'"):
                distributed.init()


@pytest.mark.parametrize("device", ["meta", "mps", "xpu:9", "cuda:99"])
def test_a_device_that_torch_cannot_use_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", device)
    with pytest.raises(BadInput, match=f"ACCELERATE_TORCH_DEVICE is '{device}', .*, which torch cannot use here: set it"):
        distributed.init()


@pytest.mark.parametrize(("rank", "world"), [("3", "2"), ("2", "2"), ("0", "0")])
def test_a_rank_beyond_the_processes_does_not_wait_for_them(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(BadInput, match=f"RANK is '{rank}', from the environment, but WORLD_SIZE is {world}: start"):
        distributed.init()


@pytest.mark.parametrize(
    ("name", "value"), [("USE_TORCH_XLA", "maybe"), ("ACCELERATE_USE_MEGATRON_LM", ""), ("LOCAL_RANK", "0")]
)
def test_what_fails_when_accelerate_is_imported_is_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    done = adainf("evaluate", write_recipe(tmp_path), "--run", tmp_path / "run", **{name: value})
    assert done.returncode == BAD_INPUT
    assert done.stderr.startswith(f"adainf: {name} is "), done.stderr
    assert done.stderr.count("\n") == 1


CONFIGS = {
    "distributed_type: 'NO'\ndynamo_config: {dynamo_backend: INDUCTOR}": "ACCELERATE_DYNAMO_BACKEND is 'INDUCTOR'",
    "distributed_type: 'NO'\nmixed_precision: bf16": "ACCELERATE_MIXED_PRECISION is 'bf16'",
    "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2}": "ACCELERATE_USE_FSDP is 'true'",
    "distributed_type: MULTI_GPU\nnum_processes: 2": None,
    "distributed_type: 'NO'\ndowncast_bf16: 'no'": None,
}


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_of_accelerates_config_file(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``accelerate launch`` passes to the processes."""
    file = tmp_path / "config.yaml"
    file.write_text(f"compute_environment: LOCAL_MACHINE\nnum_machines: 1\n{config}\n")
    arguments: argparse.Namespace = launch_command_parser().parse_args(["--config_file", str(file), "-m", "adainf.pretrain"])
    arguments, _, _ = _validate_launch_command(arguments)
    arguments.main_process_port = 0
    multi = arguments.multi_gpu or arguments.use_fsdp
    environment = prepare_multi_gpu_env(arguments) if multi else prepare_simple_launcher_cmd_env(arguments)[1]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if sentence := CONFIGS[config]:
        with pytest.raises(BadInput, match=sentence):
            check_accelerate("no")
    else:
        check_accelerate("no")


REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "eager",
    "ACCELERATE_USE_FSDP": "true",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
}
HARMLESS = {
    "ACCELERATE_DYNAMO_MODE": "max-autotune",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "?",
    "ACCELERATE_GRADIENT_CLIPPING": "0.1",
    "ACCELERATE_MIXED_PRECISION": "no",
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "FSDP_OFFLOAD_PARAMS": "true",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
}


def test_stages_refuse_or_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("steps: 30", "steps: 2").replace("steps: 12", "steps: 2"))

    def run(stage: str, folder: str, *arguments: str) -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        return main([stage, str(recipe), "--run", str(tmp_path / folder), *arguments])

    stages = (("fit",), ("pretrain", "--arm", "none"))
    for folder in ("plain", "other"):
        assert run("ingest", folder) == OK
    for stage, *arguments in stages:
        assert run(stage, "plain", *arguments) == OK
        for name, value in REFUSED.items():
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                capsys.readouterr()
                assert run(stage, "other", *arguments) == BAD_INPUT
                assert f"{name} is {value!r}, from the environment" in capsys.readouterr().err
    assert not (tmp_path / "other" / "pretrain").exists(), "nothing was claimed"
    for name, value in HARMLESS.items():
        monkeypatch.setenv(name, value)
    for stage, *arguments in stages:
        assert run(stage, "other", *arguments) == OK
    for file in ("generator/model.safetensors", "pretrain/none/seed-0/encoder.safetensors"):
        assert (tmp_path / "other" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_the_precision_of_matrix_products_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which torch reads when it is imported."""
    before = torch.get_float32_matmul_precision()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    try:
        torch.set_float32_matmul_precision("high")
        prepare(None)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.set_float32_matmul_precision(before)


def test_settings_of_the_compiler_are_refused_except_caches_and_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS", "TORCH_COMPILE_DEBUG"):
        monkeypatch.setenv(name, "1")
    check_compiler()
    for name in (
        "TORCHDYNAMO_DISABLE",
        "TORCHINDUCTOR_MAX_AUTOTUNE",
        "TORCHINDUCTOR_CPP_GEMM_CACHE_BLOCKING",
        "TORCH_COMPILE_DISABLE",
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            with pytest.raises(BadInput, match=f"{name} is '1'"):
                check_compiler()
