"""What `S3Store` says when S3 refuses: one sentence each, with the mend, and never a key, a secret or a signed address.

Only error codes and names of errors are quoted. A server's own message is not: some repeat what they were sent.
"""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from adainf.errors import AdaInfError, BadInput
from adainf.storage.base import NotFound

NO_KEY = {"NoSuchKey", "NotFound", "404"}
FORBIDDEN = {"AccessDenied", "Forbidden", "403"}
CONDITION_FAILED = {"PreconditionFailed", "412"}
CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}

_THROTTLED = {
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "BandwidthLimitExceeded",
    "TooManyRequests",
    "TooManyRequestsException",
}
_TRANSIENT = {"RequestTimeout", "RequestTimeoutException", "InternalError", "OperationAborted"}
_LASTING = {501, 505, 507}
"""Not implemented, not this version of HTTP, no space: the statuses from 500 on that another attempt does not mend."""

_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "UnauthorizedAccess", "InvalidAccessKey"}
_BAD_TOKEN = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_BAD_REGION = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_NO_SPACE = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"}
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError, SSOError)
_NO_CONNECTION = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)

_AGAIN = "run again and it goes on from here"


class Broken(BotoCoreError):
    """An answer that cannot be used, or whose body did not come to its end; asking again may help."""

    fmt = "{what}"


class Damaged(BotoCoreError):
    """An object that came to its end but is not what was put."""

    fmt = "{what}"


def code_of(error: ClientError) -> str:
    """The error's code, such as NoSuchKey; for answers without a body (HEAD) the HTTP status as text."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def retries_of(error: ClientError) -> int:
    """How many times botocore had sent the request before, without an answer that it could use."""
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def note_retries(error: BotoCoreError | ClientError, retries: int) -> BotoCoreError | ClientError:
    """`error`, telling `retries_of` how often we had repeated the request ourselves."""
    if isinstance(error, ClientError):
        error.response.setdefault("ResponseMetadata", {})["RetryAttempts"] = retries  # type: ignore[typeddict-item]
    return error


def is_throttled(error: BotoCoreError | ClientError) -> bool:
    """Whether the store asks for fewer requests."""
    return isinstance(error, ClientError) and (status_of(error) in (429, 503) or code_of(error) in _THROTTLED)


def is_transient(error: BotoCoreError | ClientError) -> bool:
    """Whether the same request may succeed a moment later."""
    if not isinstance(error, ClientError):
        return isinstance(error, Broken | HTTPClientError | ConnectionError)
    status = status_of(error)
    return is_throttled(error) or code_of(error) in _TRANSIENT or status == 408 or (status >= 500 and status not in _LASTING)


def brief(error: BotoCoreError | ClientError) -> str:
    """The error in a few words, none of them the server's message."""
    if isinstance(error, ClientError):
        status, code = str(status_of(error)), _safe_code(error)
        return status if code == status else f"{status} {code}"
    return str(error) if isinstance(error, Broken | Damaged) else type(error).__name__


def _safe_code(error: ClientError) -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", code_of(error))[:60]


def host_of(endpoint: str) -> str:
    """Host and port of an endpoint; not the rest, which may hold a password."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def missing_bucket(where: str, bucket: str) -> BadInput:
    """The error for a bucket that is not there."""
    return BadInput(f"{where}: the bucket {bucket} does not exist; create it, or correct the name in --run")


def explain(error: ClientError | BotoCoreError, where: str, bucket: str, host: str, worked: bool) -> Exception:
    """The exception to raise in place of botocore's.

    A server that is down or out of reach is an `AdaInfError`, which a scheduler may try again. `worked`: some call of this
    store has succeeded, so that a host name or TLS that fails now is no mistake of the user's either, as it would be at
    first (`BadInput`).
    """
    if isinstance(error, ClientError):
        return _explain_answer(error, where, bucket, host)
    return _explain_silence(error, where, bucket, host, AdaInfError if worked else BadInput)


def _explain_answer(error: ClientError, where: str, bucket: str, host: str) -> Exception:
    code = _safe_code(error)
    if code == "NoSuchBucket":
        return missing_bucket(where, bucket)
    if code in NO_KEY:
        return NotFound(f"{where} does not exist")
    if code in _BAD_KEYS:
        return BadInput(
            f"{where}: {host} refused the credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "the profile that they come from"
        )
    if code in _BAD_TOKEN:
        return BadInput(f"{where}: the session token is not valid any more ({code}); get new credentials; {_AGAIN}")
    if code == "RequestTimeTooSkewed":
        return BadInput(f"{where}: this machine's clock is too far from that of {host}; set the clock; {_AGAIN}")
    if code in FORBIDDEN or status_of(error) == 403:
        return BadInput(
            f"{where}: {host} forbids this ({code}); check the credentials, and that they may list the bucket {bucket} "
            "and get, put and delete its objects"
        )
    if code == "InvalidBucketName":
        return _bad_bucket_name(where, bucket)
    if code in _BAD_REGION:
        return BadInput(f"{where}: the bucket {bucket} is in another region ({code}); set AWS_DEFAULT_REGION to its region")
    if code in _NO_SPACE or status_of(error) == 507:
        return BadInput(f"{where}: no space left at {host} ({code}); free some or choose another --run; {_AGAIN}")
    return AdaInfError(f"{where}: {host} answered {brief(error)} after {retries_of(error)} retries; {_AGAIN}")


def _explain_silence(error: BotoCoreError, where: str, bucket: str, host: str, kind: type[AdaInfError]) -> Exception:
    if isinstance(error, ProfileNotFound):
        return BadInput(f"{where}: the profile that AWS_PROFILE names does not exist; correct it, or set AWS_ACCESS_KEY_ID")
    if isinstance(error, _NO_CREDENTIALS):
        return BadInput(
            f"{where}: no complete credentials were found ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, ParamValidationError):
        return _bad_bucket_name(where, bucket)
    if isinstance(error, SSLError):
        return kind(
            f"{where}: {host} speaks no TLS that is trusted here; check https in AWS_ENDPOINT_URL_S3, and AWS_CA_BUNDLE"
        )
    if isinstance(error, _NO_CONNECTION):
        known = AdaInfError if _name_exists(error) else kind
        return known(f"{where}: {host} cannot be reached; check AWS_ENDPOINT_URL_S3 and the network; {_AGAIN}")
    return AdaInfError(f"{where}: the connection to {host} kept failing ({brief(error)}); {_AGAIN}")


def _name_exists(error: BotoCoreError) -> bool:
    """False where the DNS has said that there is no such host; a DNS that does not answer has said nothing."""
    cause = error.kwargs.get("error")  # urllib3's, which comes from that of socket
    while cause is not None and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__
    return cause is None or cause.errno == socket.EAI_AGAIN


def _bad_bucket_name(where: str, bucket: str) -> BadInput:
    return BadInput(
        f"{where}: {bucket} is no name for a bucket (3 to 63 lower-case letters, digits, '.' and '-'); correct --run"
    )
