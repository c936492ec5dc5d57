"""How far the running attempts are, as their first pods say on port 8080."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from adainf.kubernetes.controller.state import Pod

PORT = 8080
_TIMEOUT_S = 1


def scrape(pods: Iterable[Pod]) -> dict[str, str]:
    """By Job, one line such as ``48120/100000 loss 5.31 8123/s eta 2h03m``; none of a pod that does not say it in a second."""
    first = [pod for pod in pods if pod.index == 0 and pod.phase == "Running" and pod.ip]
    with ThreadPoolExecutor(max_workers=8) as pool:
        lines = pool.map(lambda pod: _ask(pod.ip), first)
        return {pod.job: line for pod, line in zip(first, lines, strict=True) if line}


def _ask(ip: str) -> str:
    host = f"[{ip}]" if ":" in ip else ip
    try:
        with urllib.request.urlopen(f"http://{host}:{PORT}/progress", timeout=_TIMEOUT_S) as answer:
            return progress_line(json.loads(answer.read(65536)))
    except (OSError, ValueError, TypeError, AttributeError):  # not there yet, or not ours
        return ""


def progress_line(said: dict[str, object]) -> str:
    """A launcher's answer as one line, with the first of its values: the loss, where there is one. All are in its log."""
    parts = []
    if said.get("done") is not None:
        parts.append(f"{said['done']}/{said['total']}" if said.get("total") else f"{said['done']}")
    values = said.get("values")
    if isinstance(values, dict):
        parts += [f"{name} {value:.3g}" for name, value in list(values.items())[:1]]
    if isinstance(rate := said.get("rate"), int | float):
        parts.append(f"{rate:.4g}/s")
    if isinstance(eta_s := said.get("eta_s"), int | float):
        parts.append(f"eta {duration(eta_s)}")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """``2h03m``, ``5m``, ``40s``."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m"
