"""Objects in a bucket of S3 or of an S3-compatible store, by boto3.

Boto3 finds credentials, region and endpoint (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION,
AWS_ENDPOINT_URL_S3, a profile, or the pod's role), proxies and CA bundles. With a custom endpoint the bucket is in the
path, not in the host name (botocore's default; ``addressing_style = virtual`` in the profile changes it).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adainf.errors import BadInput
from adainf.storage.base import NotFound, ObjectInfo, PreconditionFailed, check_key, is_key
from adainf.storage.s3.client import Limits, S3Client
from adainf.storage.s3.download import Download, Reader
from adainf.storage.s3.errors import (
    CONDITION_FAILED,
    CONFLICT,
    FORBIDDEN,
    NO_KEY,
    NotS3,
    code_of,
    explain,
    has_no_code,
    is_unsupported,
    missing_bucket,
    retries_of,
    status_of,
)
from adainf.storage.s3.response import READ_BYTES, etag_of, read_headers, same_etag
from adainf.storage.s3.throttle import backoff
from adainf.storage.s3.upload import MULTIPART_OVER_BYTES, Uploader


class S3Store:
    """The store at ``s3://bucket/prefix``. Safe for concurrent use by threads, processes (also forked ones) and machines.

    Requests are retried with exponential backoff and full jitter, within `Limits`. A read that breaks off, stalls or trickles
    is resumed (`Download`). Puts carry a SHA-256 that the store verifies. Reads verify it if the store returns it; that of a
    multipart object is a checksum of checksums and is not verified: manifests hold the SHA-256 of the complete object.

    **Lost responses.** A conditional put may succeed while its response is lost; the retry then finds its own object and is
    refused. So a refusal counts as success if this call was retried *and* the object holds exactly these bytes. A concurrent
    writer of the same bytes also succeeds then, which is correct for both.

    **Stores without conditional writes** are detected by a probe before the first conditional put. For them the condition is
    checked by HEAD before the PUT, with a warning: two writers at the same instant may both succeed. Artifacts are
    deterministic, so both write the same bytes, and a reader never sees a partial object.

    Errors that a user can fix are raised as `BadInput`, others as `AdaInfError`; neither contains a credential.
    """

    def __init__(self, uri: str, limits: Limits | None = None) -> None:
        self._bucket, self._prefix = _split(uri)
        self.uri = uri
        self._limits = limits or Limits()
        self._clients: dict[int, S3Client] = {}  # by process ID
        self._uploader = Uploader(uri)
        self._ask_checksums: bool | None = None  # whether reads ask for the SHA-256; None: as botocore is set
        self._worked = False  # a call has succeeded: bucket, credentials and endpoint are valid

    def open(self, key: str, etag: str | None = None, *, verify: bool = True) -> io.BufferedReader:
        """The object as a file that is read once, forward. Raises as `get` does; so do its reads.

        An object that is replaced meanwhile is an `AdaInfError`, as some of its bytes have been returned already. ``readinto``
        a reused buffer takes half the CPU time of `get`, which allocates its memory.
        """
        download = self._download(key, etag=etag, verify=verify)
        with self._translate_errors(key):
            download.open()
        return io.BufferedReader(Reader(download, lambda: self._translate_errors(key)), READ_BYTES)

    def get(self, key: str, *, etag: str | None = None, verify: bool = True) -> bytes:
        """The object's bytes, of the version `etag` if given. `verify`: check the store's SHA-256 (0.5 s of CPU time per GB).

        Raises `NotFound`, `PreconditionFailed`, `BadInput`.
        """
        with closing(self._download(key, etag=etag, verify=verify)) as download, self._translate_errors(key):
            return download.read_all()

    def get_range(self, key: str, start_bytes: int, size_bytes: int, *, etag: str | None = None) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes`, of the version `etag` if given.

        Raises `NotFound`, `PreconditionFailed`, `BadInput`; `ValueError` past the end.
        """
        check_key(key)
        if start_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._where(key)}: {size_bytes} bytes from {start_bytes} is not a range; give two numbers >= 0")
        if not size_bytes:  # HTTP has no empty range
            return self._empty_range(key, start_bytes, etag)
        download = self._download(key, start_bytes=start_bytes, size_bytes=size_bytes, etag=etag)
        with closing(download), self._translate_errors(key):
            return download.read_all()

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write or replace the object. Raises `BadInput`."""
        check_key(key)
        with self._translate_errors(key):
            return self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Write the object if it does not exist. Raises `PreconditionFailed`, `BadInput`."""
        return self._put_if(key, data, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectInfo:
        """Replace the object if its ETag is still `etag`. Raises `PreconditionFailed`, `BadInput`."""
        return self._put_if(key, data, IfMatch=etag)

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag, or None if it does not exist. Raises `BadInput`."""
        check_key(key)
        with self._translate_errors(key):
            try:
                response = self._s3.call(lambda client: client.head_object(**self._address(key)))
            except ClientError as error:
                if code_of(error) in NO_KEY:
                    # A HEAD response has no body, so key and bucket look the same when missing.
                    if self._bucket_is_missing():
                        raise missing_bucket(self._where(key), self._bucket) from None
                    return None
                if not has_no_code(error):
                    raise
                return self._head_by_get(key)
            return ObjectInfo(key, response["ContentLength"], etag_of(response))

    def _head_by_get(self, key: str) -> ObjectInfo | None:
        """`head` after a refusal without a reason: the body of the same refusal of a GET names it.

        The GET may succeed, after credentials are renewed and where a store refuses HEAD.
        """
        try:
            response = self._s3.call(lambda client: client.get_object(**self._address(key), Range="bytes=0-0"))
        except ClientError as error:
            if code_of(error) in NO_KEY:
                return None
            if status_of(error) != 416:
                raise
            response = self._s3.call(lambda client: client.get_object(**self._address(key)))  # empty: it has no first byte
        response["Body"].close()
        headers = read_headers(response)
        return ObjectInfo(key, headers.total_bytes, headers.etag)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in ascending order of key. Raises `BadInput`."""
        found: list[ObjectInfo] = []
        with self._translate_errors(prefix):
            for page in self._s3.call(lambda client: self._pages(client, prefix)):
                if "IsTruncated" not in page:  # a page that is not S3's must not look like an empty run
                    raise NotS3(what="a listing that is none")
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._prefix)
                    # Skips probes and the empty "folders" of some tools; some stores treat "a//" as "a/".
                    if is_key(key) and key.startswith(prefix):
                        found.append(ObjectInfo(key, item["Size"], item["ETag"]))
        return iter(sorted(found, key=lambda info: info.key))  # not all stores sort by byte as AWS does

    def _pages(self, client: Any, prefix: str) -> tuple[Any, ...]:
        return tuple(client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + prefix))

    def delete(self, key: str) -> None:
        """Remove the object; no error if it does not exist. Raises `BadInput`."""
        check_key(key)
        with self._translate_errors(key):
            try:
                self._s3.call(lambda client: client.delete_object(**self._address(key)))
            except ClientError as error:
                if code_of(error) not in NO_KEY:
                    raise

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_clients": {}}

    @property
    def _s3(self) -> S3Client:
        process = os.getpid()
        return self._clients.get(process) or self._clients.setdefault(process, S3Client(self.uri, self._limits))

    @property
    def _client(self) -> Any:
        return self._s3.client

    def _download(self, key: str, **options: Any) -> Download:
        check_key(key)

        get_object = partial(self._get_object, key)
        return Download(get_object, self._s3.limiter, self._s3.retry_budget, self._limits, self._where(key), **options)

    def _get_object(self, key: str, **parameters: str) -> Any:
        """A response of GET; without ChecksumMode from a store that refuses it."""
        if self._ask_checksums is None:
            self._ask_checksums = self._s3.asks_checksums
        if not self._ask_checksums:
            parameters.pop("ChecksumMode", None)
        address = self._address(key)
        try:
            return self._s3.call(lambda client: client.get_object(**address, **parameters), read=True)
        except ClientError as error:
            if "ChecksumMode" not in parameters or not is_unsupported(error):
                raise
        del parameters["ChecksumMode"]
        response = self._s3.call(lambda client: client.get_object(**address, **parameters), read=True)
        self._ask_checksums = False
        return response

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _empty_range(self, key: str, start_bytes: int, etag: str | None) -> bytes:
        """The empty range at `start_bytes`."""
        info = self.head(key)
        if info is None:
            raise NotFound(f"{self._where(key)} does not exist")
        if etag is not None and not same_etag(etag, info.etag):
            raise PreconditionFailed(f"{self._where(key)} is not the requested version: its ETag is not {etag}")
        if start_bytes > info.size_bytes:
            raise ValueError(f"{self._where(key)} ends before byte {start_bytes}")
        return b""

    def _put_if(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        check_key(key)
        with self._translate_errors(key):
            conditional = self._uploader.supports_conditions(self._s3, self._address(""))
            if not conditional or len(data) > MULTIPART_OVER_BYTES:  # saves the upload of parts that would be refused
                self._check_condition(key, **condition)
            return self._put(key, data, **(condition if conditional else {}))

    def _check_condition(self, key: str, **condition: str) -> None:
        found = self.head(key)
        if (found is None) if "IfNoneMatch" in condition else (found is not None and found.etag == condition["IfMatch"]):
            return
        raise self._precondition_failed(key)

    def _precondition_failed(self, key: str) -> PreconditionFailed:
        return PreconditionFailed(f"{self._where(key)} exists, or is not the version to be replaced")

    def _put(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        """Upload; resolve lost responses and conflicts."""
        retried = False
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return self._upload(key, data, **condition)
            except ClientError as error:
                code = code_of(error)
                retried = retried or retries_of(error) > 0
                refused = code in CONDITION_FAILED or (code in NO_KEY and bool(condition))
                if retried and (refused or code == "NoSuchUpload") and (info := self._head_if_equal(key, data)):
                    return info
                if refused:
                    raise self._precondition_failed(key) from None
                if code not in CONFLICT or attempt == self._limits.attempts:
                    raise
            backoff(attempt)  # a concurrent writer
        raise AssertionError("unreachable")

    def _head_if_equal(self, key: str, data: bytes) -> ObjectInfo | None:
        info = self.head(key)
        return info if info is not None and info.size_bytes == len(data) and self.get(key, verify=False) == data else None

    def _upload(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        return ObjectInfo(key, len(data), self._uploader.upload(self._s3, self._address(key), data, condition))

    def _bucket_is_missing(self) -> bool:
        if self._worked:
            return False
        try:
            self._s3.call(lambda client: client.head_bucket(Bucket=self._bucket))
        except ClientError as error:
            return status_of(error) == 404  # others, such as 403, are inconclusive
        return False

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Translate botocore's errors into ours."""
        try:
            yield
            self._worked = True
        except (ClientError, BotoCoreError) as error:
            raise self._translated(key, error) from None

    def _translated(self, key: str, error: ClientError | BotoCoreError) -> Exception:
        where = self._where(key)
        with suppress(ClientError, BotoCoreError):
            if isinstance(error, ClientError) and code_of(error) in FORBIDDEN and self._bucket_is_missing():
                return missing_bucket(where, self._bucket)
        return explain(error, where, self._bucket, self._s3.host, self._worked, self._s3.anonymous)


def _split(uri: str) -> tuple[str, str]:
    """Bucket and prefix of the URI; the prefix is empty or ends with "/". Raises `BadInput`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if "@" in bucket:  # not quoted: it may be a secret
        raise BadInput("credentials do not belong in the URI of a run; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not bucket or (prefix and not is_key(prefix)):
        raise BadInput(f"{uri} is not a valid URI of a run; expected s3://bucket/prefix")
    return bucket, f"{prefix}/" if prefix else ""
