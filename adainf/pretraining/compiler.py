"""Requirements of torch.compile, checked before training: its own error is a long traceback at the first step."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from adainf.errors import BadInput
from adainf.runtime.environment import check_compiler


def require_compiler(device: torch.device) -> None:
    """Raise `BadInput` where `pretrain.compile` lacks a compiler or the headers of Python, or the environment changes its code.

    Kernels are C++ on CPUs; on GPUs the launchers of Triton kernels are C.
    """
    check_compiler()
    language, variable, names = ("C++", "CXX", ["g++"]) if device.type == "cpu" else ("C", "CC", ["gcc", "clang"])
    missing = []
    if variable not in os.environ and not any(map(shutil.which, names)):
        missing.append(f"a {language} compiler ({names[0]})")
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").exists():
        missing.append("the headers of Python (python3-dev)")
    if missing:
        raise BadInput(
            f"pretrain.compile needs {' and '.join(missing)}, missing on this machine: install it, or set compile to false"
        )
