"""Error messages of `S3Store`: one sentence each, with the fix, and never a key, a secret or a signed URL.

Only error codes and names are quoted. A server's message is not: some servers echo the request.
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
_PERMANENT = {501, 505, 507}
"""Not implemented, HTTP version not supported, insufficient storage: the 5xx statuses that a retry does not fix."""

_UNKNOWN_KEYS = {"InvalidAccessKeyId", "InvalidAccessKey"}
_BAD_KEYS = {"SignatureDoesNotMatch", "InvalidSecurity", "UnauthorizedAccess", *_UNKNOWN_KEYS}
_BAD_TOKEN = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_BAD_TOKEN |= {"InvalidIdentityToken", "InvalidTokenId", "InvalidSecurityToken", "SecurityTokenExpired"}  # STS, other stores
_BAD_REGION = {"PermanentRedirect", "TemporaryRedirect", "301", "307", "AuthorizationHeaderMalformed"}
_BAD_REGION |= {"IllegalLocationConstraintException"}
_NO_SPACE = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"}
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError, SSOError)
_NO_CONNECTION = (EndpointConnectionError, ConnectTimeoutError)

RESUME = "run the same command again to resume"


class BrokenResponse(BotoCoreError):
    """A response that is invalid or whose body is incomplete; a retry may succeed."""

    fmt = "{what}"


class NotS3(BotoCoreError):
    """A success without what S3 returns: from a console, a login page, or a proxy."""

    fmt = "{what}"


class ChecksumMismatch(BotoCoreError):
    """A complete object whose bytes are not those of the upload."""

    fmt = "{what}"


def code_of(error: ClientError) -> str:
    """The error's code, such as NoSuchKey; for responses without a body (HEAD) the HTTP status as text."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the response."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def retries_of(error: ClientError) -> int:
    """How many times botocore has retried the request."""
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def note_retries(error: BotoCoreError | ClientError, retries: int) -> BotoCoreError | ClientError:
    """`error`, with the number of our own retries recorded for `retries_of`."""
    if isinstance(error, ClientError):
        error.response.setdefault("ResponseMetadata", {})["RetryAttempts"] = retries  # type: ignore[typeddict-item]
    return error


def is_throttled(error: BotoCoreError | ClientError) -> bool:
    """Whether the store throttles requests."""
    return isinstance(error, ClientError) and (status_of(error) in (429, 503) or code_of(error) in _THROTTLED)


def is_transient(error: BotoCoreError | ClientError) -> bool:
    """Whether the same request may succeed a moment later."""
    if not isinstance(error, ClientError):
        return isinstance(error, BrokenResponse | HTTPClientError | ConnectionError)
    status = status_of(error)
    return is_throttled(error) or code_of(error) in _TRANSIENT or status == 408 or (status >= 500 and status not in _PERMANENT)


def is_rejected(error: BotoCoreError | ClientError, worked: bool) -> bool:
    """Whether the store rejects the credentials, and others may be valid in some seconds: they expire, or are new.

    `worked`: they were accepted before, so a signature or a source of credentials that fails now is being changed.
    """
    if isinstance(error, ClientError):
        return code_of(error) in _BAD_TOKEN | (_BAD_KEYS if worked else _UNKNOWN_KEYS)
    return worked and isinstance(error, _NO_CREDENTIALS)


def is_unsupported(error: ClientError) -> bool:
    """Whether the store may have refused a header that it does not know."""
    known = _BAD_TOKEN | _BAD_KEYS | _BAD_REGION | {"RequestTimeTooSkewed", "InvalidBucketName", "BadDigest"}
    return status_of(error) in (400, 501) and code_of(error) not in known


def has_no_code(error: ClientError) -> bool:
    """Whether a refusal lacks the error code that its body would hold: responses to HEAD have no body."""
    return code_of(error).isdecimal() and not is_transient(error)


def brief(error: BotoCoreError | ClientError) -> str:
    """The error in a few words, without the server's message."""
    if isinstance(error, ClientError):
        status, code = str(status_of(error)), _safe_code(error)
        return status if code == status else f"{status} {code}"
    return str(error) if isinstance(error, BrokenResponse | ChecksumMismatch) else type(error).__name__


def _safe_code(error: ClientError) -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", code_of(error))[:60]


def host_of(endpoint: str) -> str:
    """Host and port of an endpoint, without the rest, which may hold a password."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def missing_bucket(where: str, bucket: str) -> BadInput:
    """The error for a bucket that does not exist."""
    return BadInput(f"{where}: the bucket {bucket} does not exist; create it, or correct its name")


def explain(
    error: ClientError | BotoCoreError, where: str, bucket: str, host: str, worked: bool, anonymous: bool = False
) -> Exception:
    """The exception to raise instead of botocore's.

    A server that is down or unreachable is an `AdaInfError`, which a scheduler may retry. `worked`: an earlier call of this
    store has succeeded, so a failing host name or TLS is an outage as well. Without an earlier success it is a configuration
    error (`BadInput`). `anonymous`: no credentials were found, so the request was not signed.
    """
    if isinstance(error, ClientError):
        if anonymous and status_of(error) in (401, 403):
            return BadInput(
                f"{where}: no complete credentials were found, and {host} denied anonymous access ({_safe_code(error)}); set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        return _explain_response(error, where, bucket, host)
    return _explain_no_response(error, where, bucket, host, AdaInfError if worked else BadInput)


def _explain_response(error: ClientError, where: str, bucket: str, host: str) -> Exception:
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
        return BadInput(f"{where}: the session token is invalid or expired ({code}); get new credentials; {RESUME}")
    if code == "RequestTimeTooSkewed":
        return BadInput(f"{where}: this machine's clock is too far from that of {host}; set the clock; {RESUME}")
    if code in FORBIDDEN or status_of(error) == 403:
        return BadInput(
            f"{where}: {host} denied access ({code}); check the credentials, and that they may list the bucket {bucket} "
            "and get, put and delete its objects"
        )
    if code == "InvalidBucketName":
        return _bad_bucket_name(where, bucket)
    if status_of(error) == 407:
        return BadInput(f"{where}: the proxy refused access (407); correct the user and password in HTTPS_PROXY or HTTP_PROXY")
    if code in ("", str(status_of(error))) and (location := _location(error)):
        return BadInput(
            f"{where}: {host} redirects to {location}; set AWS_ENDPOINT_URL_S3 to the address of the store, such as {location}"
        )
    if code in _BAD_REGION:
        return BadInput(f"{where}: the bucket {bucket} is in another region ({code}); set AWS_DEFAULT_REGION to its region")
    if code in _NO_SPACE or status_of(error) == 507:
        return BadInput(f"{where}: no space left at {host} ({code}); free some or use another store; {RESUME}")
    return AdaInfError(f"{where}: {host} responded {brief(error)} after {retries_of(error)} retries; {RESUME}")


def _location(error: ClientError) -> str:
    """Scheme and host of the address that a redirect names; the rest may be signed."""
    target = urlsplit(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("location", ""))
    return f"{target.scheme}://{host_of(target.geturl())}" if 300 <= status_of(error) < 400 and target.hostname else ""


def _explain_no_response(error: BotoCoreError, where: str, bucket: str, host: str, kind: type[AdaInfError]) -> Exception:
    if isinstance(error, ProfileNotFound):
        return BadInput(f"{where}: the profile in AWS_PROFILE does not exist; correct it, or set AWS_ACCESS_KEY_ID")
    if isinstance(error, _NO_CREDENTIALS):
        return BadInput(
            f"{where}: no complete credentials were found ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, NotS3):
        return kind(
            f"{where}: {host} does not respond as S3 does ({error}); set AWS_ENDPOINT_URL_S3 to the address of the store, not "
            "of its console or a login page"
        )
    if isinstance(error, ParamValidationError):
        return _bad_bucket_name(where, bucket)
    if isinstance(error, SSLError):
        return kind(f"{where}: no trusted TLS connection to {host}; check https in AWS_ENDPOINT_URL_S3, and AWS_CA_BUNDLE")
    if isinstance(error, ProxyConnectionError):  # its text may hold the password of the proxy
        return AdaInfError(
            f"{where}: the proxy in HTTPS_PROXY or HTTP_PROXY cannot be reached or refuses {host}; correct it, or add the host "
            f"to NO_PROXY; {RESUME}"
        )
    if isinstance(error, _NO_CONNECTION):
        known = AdaInfError if _name_exists(error) else kind
        return known(f"{where}: {host} cannot be reached; check AWS_ENDPOINT_URL_S3 and the network; {RESUME}")
    return AdaInfError(f"{where}: the connection to {host} kept failing ({brief(error)}); {RESUME}")


def _name_exists(error: BotoCoreError) -> bool:
    """False if DNS reports that the host does not exist; a DNS server that does not respond is no such report."""
    cause = error.kwargs.get("error")  # urllib3's, caused by socket's
    while cause is not None and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__
    return cause is None or cause.errno == socket.EAI_AGAIN


def _bad_bucket_name(where: str, bucket: str) -> BadInput:
    return BadInput(
        f"{where}: {bucket} is not a valid bucket name (3 to 63 lower-case letters, digits, '.' and '-'); correct the name"
    )
