"""Serves the progress of the stage: ``/progress`` as JSON, ``/metrics`` in the Prometheus text format.

The stage writes its progress to a small file, which each request reads. So a stage that hangs does not block the endpoints.
"""

from __future__ import annotations

import json
import math
import re
import socketserver
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

_UNITS = {
    "_per_s": ("_per_second", 1.0),
    "_s": ("_seconds", 1.0),
    "_pct": ("_ratio", 0.01),
    "_mib": ("_bytes", 2.0**20),
    "_gib": ("_bytes", 2.0**30),
}
"""Suffix of a value's name → suffix in the base unit of Prometheus, and the factor to convert it."""


class Progress:
    """Reads the progress file that the stage's reporter writes."""

    def __init__(self, stage: str, file: Path) -> None:
        self._stage, self._file = stage, file

    def now(self) -> dict[str, Any]:
        """The content of ``/progress``. Unknown fields are None: in a gang only the first node reports progress."""
        fields: dict[str, Any] = dict.fromkeys(("label", "done", "total", "rate", "eta_s"))
        written = self._read()
        if written is None:
            return {"stage": self._stage, **fields, "values": {}, "updated_s_ago": None}
        ago_s = round(max(time.time() - written.pop("updated"), 0.0), 1)
        eta_s = round((written["total"] - written["done"]) / written["rate"]) if written["rate"] else None
        return {"stage": self._stage, **fields, **written, "eta_s": eta_s, "updated_s_ago": ago_s}

    def metrics(self) -> str:
        """The content of ``/metrics``: one gauge per quantity, in base units. Empty while nothing is known."""
        written = self._read()
        if written is None:
            return ""
        labels = {"stage": self._stage, "loop": written["label"]}
        return "".join(
            f"# HELP {name} {text}\n# TYPE {name} gauge\n{name}{{{_labels(labels)}}} {_number(value)}\n"
            for name, text, value in _gauges(written)
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            written: dict[str, Any] = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return None
        return written


def _gauges(written: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Name, HELP text and value of each metric."""
    done, total, rate = written["done"], written["total"], written["rate"]
    yield "adainf_stage_items_done", "Items that the current loop of the stage has processed.", done
    yield "adainf_stage_items", "Items of the current loop of the stage.", total
    yield "adainf_stage_items_per_second", "Items per second since the start of the loop.", rate
    if rate:
        yield "adainf_stage_remaining_seconds", "Estimated time to the end of the loop.", (total - done) / rate
    yield "adainf_stage_last_update_timestamp_seconds", "Unix time of the last progress report.", written["updated"]
    for name, value in written["values"].items():
        metric, factor = _base_unit(re.sub("[^a-zA-Z0-9_]", "_", name))
        yield f"adainf_stage_{metric}", f"Value {name} of the current loop, in base units.", value * factor


def _base_unit(name: str) -> tuple[str, float]:
    """Name in base units, and the factor to convert a value."""
    for suffix, (base, factor) in _UNITS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix) + base, factor
    return name, 1.0


def _labels(labels: dict[str, str]) -> str:
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"


class _Server(socketserver.ThreadingTCPServer):  # not HTTPServer, whose constructor looks up its own name in DNS
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], progress: Progress) -> None:
        self.progress = progress
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5

    def do_GET(self) -> None:
        if self.path == "/progress":
            self._respond(json.dumps(self.server.progress.now()), "application/json")
        elif self.path == "/metrics":
            self._respond(self.server.progress.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _respond(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing: the output belongs to the stage."""


def serve(progress: Progress, host: str, port: int) -> None:
    """Start the server in a daemon thread. Raises `OSError` if the port is in use."""
    threading.Thread(target=_Server((host, port), progress).serve_forever, daemon=True).start()
