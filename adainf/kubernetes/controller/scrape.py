"""Reads the progress of running attempts from `/progress` of their first pods."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from adainf.kubernetes.controller.state import Pod

PORT = 8080
_TIMEOUT_S = 1


def scrape(pods: Iterable[Pod]) -> dict[str, str]:
    """Job → one line such as ``48120/100000 loss 5.31 8123/s eta 2h03m``. Skips pods that do not respond within a second."""
    first = [pod for pod in pods if pod.index == 0 and pod.phase == "Running" and pod.ip]
    with ThreadPoolExecutor(max_workers=8) as pool:
        lines = pool.map(lambda pod: _get(pod.ip), first)
        return {pod.job: line for pod, line in zip(first, lines, strict=True) if line}


def _get(ip: str) -> str:
    host = f"[{ip}]" if ":" in ip else ip
    try:
        with urllib.request.urlopen(f"http://{host}:{PORT}/progress", timeout=_TIMEOUT_S) as response:
            return progress_line(json.loads(response.read(65536)))
    except (OSError, ValueError, TypeError, AttributeError):  # not listening yet, or not a launcher
        return ""


def progress_line(progress: dict[str, object]) -> str:
    """Format a launcher's progress as one line. Shows the first of its values, which is the loss if there is one."""
    parts = []
    if progress.get("done") is not None:
        parts.append(f"{progress['done']}/{progress['total']}" if progress.get("total") else f"{progress['done']}")
    values = progress.get("values")
    if isinstance(values, dict):
        parts += [f"{name} {value:.3g}" for name, value in list(values.items())[:1]]
    if isinstance(rate := progress.get("rate"), int | float):
        parts.append(f"{rate:.4g}/s")
    if isinstance(eta_s := progress.get("eta_s"), int | float):
        parts.append(f"eta {duration(eta_s)}")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """``2h03m``, ``5m``, ``40s``."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m"
