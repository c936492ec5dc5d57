"""How far the stage is, for whoever asks: ``/progress`` as JSON, ``/metrics`` as Prometheus reads it.

The stage's reporter leaves what it knows in a small file, which is read when somebody asks: a stage that hangs still answers.
"""

from __future__ import annotations

import json
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Progress:
    """What the reporter of the stage has written last."""

    def __init__(self, stage: str, file: Path) -> None:
        self._stage, self._file = stage, file

    def now(self) -> dict[str, Any]:
        """As ``/progress`` gives it; None where nothing is known, as on all nodes but the first."""
        fields: dict[str, Any] = dict.fromkeys(("label", "done", "total", "rate", "eta_s"))
        try:
            told = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {"stage": self._stage, **fields, "values": {}, "updated_s_ago": None}
        ago_s = round(max(time.time() - told.pop("updated"), 0.0), 1)
        eta_s = round((told["total"] - told["done"]) / told["rate"]) if told["rate"] else None
        return {"stage": self._stage, **fields, **told, "eta_s": eta_s, "updated_s_ago": ago_s}

    def metrics(self) -> str:
        """The numbers of `now` in Prometheus' text format."""
        now = self.now()
        labels = f"stage={json.dumps(now['stage'])},label={json.dumps(now['label'] or '')}"
        lines: list[str] = []
        for name in ("done", "total", "rate", "eta_s", "updated_s_ago"):
            if now[name] is not None:
                lines += [f"# TYPE adainf_{name} gauge", f"adainf_{name}{{{labels}}} {now[name]}"]
        if now["values"]:
            lines.append("# TYPE adainf_value gauge")
            lines += [f"adainf_value{{{labels},name={json.dumps(name)}}} {value}" for name, value in now["values"].items()]
        return "".join(f"{line}\n" for line in lines)


class _Server(socketserver.ThreadingTCPServer):  # not HTTPServer, which asks the DNS for its own name before it serves
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
            self._answer(json.dumps(self.server.progress.now()), "application/json")
        elif self.path == "/metrics":
            self._answer(self.server.progress.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the output is the stage's."""


def serve(progress: Progress, host: str, port: int) -> None:
    """Answer from now on, in a thread that ends with the process. Raises `OSError` where the port is taken."""
    threading.Thread(target=_Server((host, port), progress).serve_forever, daemon=True).start()
