"""What torch.compile takes from the machine. Without it training would end in a long traceback at its first step."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import torch

from adainf.errors import BadInput


def require_compiler(device: torch.device) -> None:
    """Raise `BadInput` where `pretrain.compile` would find no compiler, or no headers of Python.

    On CPUs kernels are C++; on GPUs what launches those of Triton is C.
    """
    language, variable, names = ("C++", "CXX", ["g++"]) if device.type == "cpu" else ("C", "CC", ["gcc", "clang"])
    missing = []
    if variable not in os.environ and not any(map(shutil.which, names)):
        missing.append(f"a {language} compiler ({names[0]})")
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").exists():
        missing.append("the headers of Python (python3-dev)")
    if missing:
        raise BadInput(f"pretrain.compile needs {' and '.join(missing)}, missing here: install that, or set compile to false")
