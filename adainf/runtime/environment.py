"""Environment variables that would change a result: refused here, or fixed.

The recipe decides every result. But accelerate reads settings from the environment (``accelerate launch`` puts its options and
its config file there), and torch and its libraries read theirs. Variables that select devices and processes are followed. Those
that emulate another processor (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_CBWR, …) give the results of that processor.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from adainf.errors import BadInput

_OFF = ("", "0", "f", "false", "n", "no", "off")
_TRUTH = (*_OFF[1:], "1", "on", "t", "true", "y", "yes")

ACCELERATE_SWITCHES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ACCELERATE_DYNAMO_BACKEND": (_OFF, "set pretrain.compile in the recipe instead, or unset it"),
    "ACCELERATE_FP8_BACKEND": (_OFF, "unset it"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("", "1"), "set pretrain.chunk_images in the recipe instead, or unset it"),
    "ACCELERATE_USE_DEEPSPEED": (_OFF, "launch with --multi_gpu, or unset it"),
    "ACCELERATE_USE_FSDP": (_OFF, "launch with --multi_gpu, or unset it"),
    "ACCELERATE_USE_MEGATRON_LM": (_OFF, "launch with --multi_gpu, or unset it"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (_OFF, "launch with --multi_gpu, or unset it"),
    "ACCELERATE_USE_SAGEMAKER": (_OFF, "unset it"),
}
"""Settings of accelerate that must be off → (values that mean off, the fix)."""

ACCELERATE_DETAILS = (
    "ACCELERATE_DEEPSPEED_",
    "ACCELERATE_DYNAMO_",
    "ACCELERATE_FP8_",
    "ACCELERATE_SAGEMAKER_",
    "FSDP_",
    "MEGATRON_LM_",
    "PARALLELISM_CONFIG_",
)
"""Prefixes of the settings of what is off. ``accelerate launch`` sets some of them always."""

ACCELERATE_FLAGS = (
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_ENABLE_RICH",
    "ACCELERATE_USE_CPU",
    "FORK_LAUNCHED",
    "USE_TORCH_XLA",
)
"""Flags of accelerate that are followed."""

_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_READ_AT_IMPORT = (*ACCELERATE_FLAGS, "ACCELERATE_USE_MEGATRON_LM")

_CPU_SETTINGS = ("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE")
_CUDA_SETTINGS = (
    "CUBLASLT_WORKSPACE_SIZE",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "DISABLE_ADDMM_CUDA_LT",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_TUNABLEOP_ENABLED",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
)
_COMPILER_PREFIXES = ("TORCHDYNAMO_", "TORCHINDUCTOR_", "TORCH_COMPILE_", "TORCH_DYNAMO_")
_COMPILER_FOLLOWED = (
    *("_CACHE", "_CACHES", "CACHE_DIR", "CACHE_KEY_TAG", "_JOB_ID"),
    *("COMPILE_THREADS", "WORKER_START"),
    *("_DEBUG", "DEBUG_DIR", "LOGPATH", "LOG_PATH", "PROFILE", "VERBOSE"),
)
"""Ends of the names of torch.compile's variables that concern caches, processes and reports."""


def check_launch() -> None:
    """Raise `BadInput` for values that accelerate and torch cannot read. Call it before they are imported: some fail there."""
    for name in _READ_AT_IMPORT:
        if os.environ.get(name, "0").lower() not in _TRUTH:
            raise _refused(name, "set it to true or false, or unset it", _UNREADABLE)
    if os.environ.get("ACCELERATE_LOG_LEVEL", "INFO").upper() not in logging.getLevelNamesMapping():
        raise _refused("ACCELERATE_LOG_LEVEL", "set it to a level such as INFO, or unset it", _UNREADABLE)
    for name in _RANKS:
        if not os.environ.get(name, "0").isdecimal():
            raise _refused(name, "let a launcher set it, or unset it", _UNREADABLE)
    if int(os.environ.get("MASTER_PORT", "0")) >= 1 << 16:
        raise _refused("MASTER_PORT", "set it to a port below 65536", "which is not a port")
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if "LOCAL_RANK" in os.environ and missing:
        raise BadInput(
            f"LOCAL_RANK is set in the environment without {', '.join(missing)}, so the processes cannot find each other: "
            "start them by a launcher, or unset LOCAL_RANK for one process"
        )
    if "LOCAL_RANK" in os.environ and int(os.environ["RANK"]) >= int(os.environ["WORLD_SIZE"]):  # it would wait for ever
        wrong = f"but WORLD_SIZE is {os.environ['WORLD_SIZE']}"
        raise _refused("RANK", "start the processes by a launcher, or unset LOCAL_RANK for one process", wrong)


def check_accelerate(precision: str | None = None) -> None:
    """Raise `BadInput` for a setting of accelerate that would change a result, or that it cannot read; remove the others.

    `precision` is the recipe's, for stages that train by accelerate.
    """
    for name, (off, fix) in ACCELERATE_SWITCHES.items():
        _require(name, off, fix)
    check_launch()
    if precision is not None:
        _require("ACCELERATE_MIXED_PRECISION", ("", "no", precision), "set pretrain.precision in the recipe, or unset it")
    import torch  # takes seconds, and commands without it check the launch, too

    if "ACCELERATE_TORCH_DEVICE" in os.environ:
        fix = "set it to a device such as cuda:1, or unset it"
        try:
            torch.zeros(1, device=os.environ["ACCELERATE_TORCH_DEVICE"]).item()
        except (RuntimeError, AssertionError):  # NotImplementedError and torch.AcceleratorError are RuntimeErrors
            raise _refused("ACCELERATE_TORCH_DEVICE", fix, "which torch cannot use here") from None
    for name in list(os.environ):
        if name in ACCELERATE_SWITCHES or name.startswith(ACCELERATE_DETAILS):
            del os.environ[name]


def check_libraries() -> None:
    """Raise `BadInput` for a setting of torch, oneDNN, cuBLAS or cuDNN that replaces the precision or the algorithm."""
    import torch

    for name in _CPU_SETTINGS:
        _require(name, ("", "strict"), "unset it")
    if torch.cuda.is_available():
        for name in _CUDA_SETTINGS:
            _require(name, ("",), "unset it")


def check_compiler() -> None:
    """Raise `BadInput` for a setting of torch.compile that changes the code it generates."""
    for name in os.environ:
        if name.startswith(_COMPILER_PREFIXES) and not name.endswith(_COMPILER_FOLLOWED):
            _require(name, ("",), "unset it")


_CHANGES = "but only the recipe may change a result"
_UNREADABLE = "which cannot be read"


def _require(name: str, accepted: tuple[str, ...], fix: str, wrong: str = _CHANGES) -> None:
    value = os.environ.get(name)
    if value is not None and value.strip().lower() not in accepted:
        raise _refused(name, fix, wrong)


def _refused(name: str, fix: str, wrong: str = _CHANGES) -> BadInput:
    origin = " or from accelerate's options and config file" if name.startswith("ACCELERATE_") else ""
    return BadInput(f"{name} is {os.environ[name]!r}, from the environment{origin}, {wrong}: {fix}")
