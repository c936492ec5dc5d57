"""`Status` objects: error responses of the API server."""

from __future__ import annotations

from typing import Any

REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict",
    410: "Expired", 415: "UnsupportedMediaType", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
    503: "ServiceUnavailable",
}  # fmt: skip


class Refusal(Exception):
    """A response with an HTTP error status."""

    def __init__(self, code: int, message: str, *, reason: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s
        self.reason = reason or REASONS.get(code, "Unknown")

    def body(self) -> dict[str, Any]:
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code, "details": {"retryAfterSeconds": self.retry_after_s or 0},
        }  # fmt: skip


def not_found(resource: str, name: str) -> Refusal:
    return Refusal(404, f'{resource} "{name}" not found')
