"""Environment variables that would change a result: refused here, or fixed.

The recipe decides every result. But accelerate reads settings from the environment (``accelerate launch`` puts its options and
its config file there), and torch and its libraries read theirs. Variables that select devices and processes are followed. Those
that emulate another processor (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_CBWR, …) give the results of that processor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

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

ACCELERATE_FLAGS = ("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE", "ACCELERATE_USE_CPU", "FORK_LAUNCHED")
"""Flags of accelerate that are followed. It fails on values that are neither true nor false."""

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
_COMPILER_FOLLOWED = ("CACHE", "DEBUG", "LOG", "PROFIL", "THREADS", "VERBOSE", "WORKER")
"""Parts of the names of torch.compile's variables that concern caches, processes and reports."""


def check_accelerate(precision: str | None = None) -> None:
    """Raise `BadInput` for a setting of accelerate that would change a result, or that it cannot read; remove the others.

    `precision` is the recipe's, for stages that train by accelerate.
    """
    for name, (off, fix) in ACCELERATE_SWITCHES.items():
        _require(name, off, fix)
    for name in ACCELERATE_FLAGS:
        _require(name, _TRUTH, "set it to true or false, or unset it")
    if precision is not None:
        _require("ACCELERATE_MIXED_PRECISION", ("", "no", precision), "set pretrain.precision in the recipe, or unset it")
    try:
        torch.device(os.environ.get("ACCELERATE_TORCH_DEVICE", "cpu"))
    except RuntimeError:
        raise _refused("ACCELERATE_TORCH_DEVICE", "set it to a device of torch such as cuda:1, or unset it") from None
    for name in list(os.environ):
        if name in ACCELERATE_SWITCHES or name.startswith(ACCELERATE_DETAILS):
            del os.environ[name]


def check_libraries() -> None:
    """Raise `BadInput` for a setting of torch, oneDNN, cuBLAS or cuDNN that replaces the precision or the algorithm."""
    for name in _CPU_SETTINGS:
        _require(name, ("", "strict"), "unset it")
    if torch.cuda.is_available():
        for name in _CUDA_SETTINGS:
            _require(name, ("",), "unset it")


def check_compiler() -> None:
    """Raise `BadInput` for a setting of torch.compile that changes the code it generates."""
    for name in os.environ:
        if name.startswith(_COMPILER_PREFIXES) and not any(part in name for part in _COMPILER_FOLLOWED):
            _require(name, ("",), "unset it")


def _require(name: str, accepted: tuple[str, ...], fix: str) -> None:
    value = os.environ.get(name)
    if value is not None and value.strip().lower() not in accepted:
        raise _refused(name, fix)


def _refused(name: str, fix: str) -> BadInput:
    origin = " or from accelerate's options and config file" if name.startswith("ACCELERATE_") else ""
    return BadInput(
        f"{name} is {os.environ[name]!r}, from the environment{origin}, but only the recipe may change a result: {fix}"
    )
