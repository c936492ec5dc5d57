"""Objects in an S3 bucket, or in any store that speaks S3, by boto3.

Credentials, region and endpoint come from where boto3 looks for them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, a profile, or the pod's role. With an endpoint of its own the bucket is put in
the path, not the host name (botocore does so unless the profile says ``addressing_style = virtual``).
"""

from __future__ import annotations

import io
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adainf.errors import BadInput
from adainf.storage.base import PROBE, NotFound, ObjectInfo, PreconditionFailed, check_key, is_key
from adainf.storage.s3.client import Limits, S3Client
from adainf.storage.s3.download import Download, Reader
from adainf.storage.s3.errors import (
    CONDITION_FAILED,
    CONFLICT,
    FORBIDDEN,
    NO_KEY,
    code_of,
    explain,
    missing_bucket,
    retries_of,
    status_of,
)
from adainf.storage.s3.response import READ_BYTES, same_etag
from adainf.storage.s3.throttle import pause
from adainf.storage.s3.upload import MULTIPART_OVER_BYTES, upload


class S3Store:
    """The store at ``s3://bucket/prefix``. Safe among threads, processes (also forked ones) and machines.

    Requests are repeated with full jitter for as long as `Limits` says; a read that breaks off, stops or trickles is
    taken up where it was (`Download`). Puts carry a SHA-256 that the store checks; reads check it where the store returns
    it (a multipart object's sum is one over its parts, and is not checked: manifests hold the sum of the whole).

    **A lost answer.** A conditional put may succeed while its answer is lost; repeated, it then finds its own object
    and is refused. So a refusal counts as success where this call was repeated *and* the object holds these very bytes.
    A rival who put the same bytes at that moment is told the same, which is as true for both.

    **A store without conditional writes** is found out by a probe before the first conditional put. There the condition
    is checked by HEAD before the PUT, with a warning: two writers at the same instant may then both win. Artifacts are
    deterministic, so both write the same bytes, and a reader never sees a part.

    Errors that a user can mend are raised as `BadInput`, others as `AdaInfError`; neither holds a credential.
    """

    def __init__(self, uri: str, limits: Limits | None = None) -> None:
        self._bucket, self._prefix = _split(uri)
        self.uri = uri
        self._limits = limits or Limits()
        self._links: dict[int, S3Client] = {}  # by process
        self._conditional: bool | None = None  # whether the store honours conditions; None: not tried yet
        self._worked = False  # a call has succeeded: bucket, credentials and endpoint are right

    def open(self, key: str, etag: str | None = None, *, verify: bool = True) -> io.BufferedReader:
        """The object as a file that is read once, forward. Raises as `get` does, and so does reading on.

        An object that is replaced meanwhile is an `AdaInfError`, as some of its bytes have been given away. ``readinto``
        a buffer that is used again costs half the CPU of `get`, whose memory is new each time.
        """
        download = self._download(key, etag=etag, verify=verify)
        with self._explained(key):
            download.begin()
        return io.BufferedReader(Reader(download, lambda: self._explained(key)), READ_BYTES)

    def get(self, key: str, *, etag: str | None = None, verify: bool = True) -> bytes:
        """The object's bytes, of the version `etag` if given. `verify`: check the store's SHA-256 (0.5 s of CPU per GB).

        Raises `NotFound`, `PreconditionFailed`, `BadInput`.
        """
        with closing(self._download(key, etag=etag, verify=verify)) as download, self._explained(key):
            return download.whole()

    def get_range(self, key: str, start_bytes: int, size_bytes: int, *, etag: str | None = None) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes` on, of the version `etag` if given.

        Raises `NotFound`, `PreconditionFailed`, `BadInput`; `ValueError` past the end.
        """
        check_key(key)
        if start_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._where(key)}: {size_bytes} bytes from {start_bytes} on is no range")
        if not size_bytes:  # HTTP has no empty range
            return self._nothing(key, start_bytes, etag)
        download = self._download(key, start_bytes=start_bytes, size_bytes=size_bytes, etag=etag)
        with closing(download), self._explained(key):
            return download.whole()

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write or replace the object. Raises `BadInput`."""
        check_key(key)
        with self._explained(key):
            return self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> ObjectInfo:
        """Write the object unless one is there. Raises `PreconditionFailed`, `BadInput`."""
        return self._put_if(key, data, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectInfo:
        """Replace the object if its ETag is still `etag`. Raises `PreconditionFailed`, `BadInput`."""
        return self._put_if(key, data, IfMatch=etag)

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and ETag, or None where there is none. Raises `BadInput`."""
        check_key(key)
        with self._explained(key):
            try:
                answer = self._client.head_object(**self._address(key))
            except ClientError as error:
                if code_of(error) not in NO_KEY:
                    raise
                # HEAD has no body to say whether the key is missing or the bucket.
                if self._bucket_is_missing():
                    raise missing_bucket(self._where(key), self._bucket) from None
                return None
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in ascending order of key. Raises `BadInput`."""
        found: list[ObjectInfo] = []
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._prefix)
                    # Not probes, nor the empty "folders" that some tools leave; some stores read "a//" as "a/".
                    if is_key(key) and key.startswith(prefix):
                        found.append(ObjectInfo(key, item["Size"], item["ETag"]))
        return iter(sorted(found, key=lambda info: info.key))  # not every store sorts by byte as AWS does

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none. Raises `BadInput`."""
        check_key(key)
        with self._explained(key):
            try:
                self._client.delete_object(**self._address(key))
            except ClientError as error:
                if code_of(error) not in NO_KEY:
                    raise

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_links": {}}

    @property
    def _link(self) -> S3Client:
        process = os.getpid()
        return self._links.get(process) or self._links.setdefault(process, S3Client(self.uri, self._limits))

    @property
    def _client(self) -> Any:
        return self._link.client

    def _download(self, key: str, **how: Any) -> Download:
        check_key(key)

        def ask(**asked: str) -> Any:
            return self._link.reads.get_object(**self._address(key), **asked)

        return Download(ask, self._link.pace, self._limits, self._where(key), **how)

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _nothing(self, key: str, start_bytes: int, etag: str | None) -> bytes:
        """The empty range at `start_bytes`."""
        info = self.head(key)
        if info is None:
            raise NotFound(f"{self._where(key)} does not exist")
        if etag is not None and not same_etag(etag, info.etag):
            raise PreconditionFailed(f"{self._where(key)} is not the object that was to be read: its ETag is not {etag}")
        if start_bytes > info.size_bytes:
            raise ValueError(f"{self._where(key)} ends before byte {start_bytes}")
        return b""

    def _put_if(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        check_key(key)
        with self._explained(key):
            conditional = self._honours_conditions()
            if not conditional or len(data) > MULTIPART_OVER_BYTES:  # before the parts are sent for nothing
                self._compare(key, **condition)
            return self._put(key, data, **(condition if conditional else {}))

    def _compare(self, key: str, **condition: str) -> None:
        found = self.head(key)
        if (found is None) if "IfNoneMatch" in condition else (found is not None and found.etag == condition["IfMatch"]):
            return
        raise self._refused(key)

    def _refused(self, key: str) -> PreconditionFailed:
        return PreconditionFailed(f"{self._where(key)} exists, or is not the object that was to be replaced")

    def _put(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        """Upload, with the doubts about lost answers and conflicts settled."""
        repeated = False
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return self._upload(key, data, **condition)
            except ClientError as error:
                code = code_of(error)
                repeated = repeated or retries_of(error) > 0
                refused = code in CONDITION_FAILED or (code in NO_KEY and bool(condition))
                if repeated and (refused or code == "NoSuchUpload") and (info := self._if_holds(key, data)):
                    return info
                if refused:
                    raise self._refused(key) from None
                if code not in CONFLICT or attempt == self._limits.attempts:
                    raise
            pause(attempt)  # another writer was at it in the same moment
        raise AssertionError("unreachable")

    def _if_holds(self, key: str, data: bytes) -> ObjectInfo | None:
        info = self.head(key)
        return info if info is not None and info.size_bytes == len(data) and self.get(key, verify=False) == data else None

    def _upload(self, key: str, data: bytes, **condition: str) -> ObjectInfo:
        return ObjectInfo(key, len(data), upload(self._client, self._address(key), data, condition))

    def _honours_conditions(self) -> bool:
        if self._conditional is None:
            self._conditional = self._probe()
            if not self._conditional:
                warnings.warn(
                    f"{self.uri}: this store ignores conditional writes; they are replaced by a look before the write, "
                    "so start each stage of this run only once at a time",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return self._conditional

    def _probe(self) -> bool:
        key = f"{PROBE}{secrets.token_hex(8)}"
        self._refuses(key, IfNoneMatch="*")  # nothing to refuse yet: this one writes
        try:
            return self._refuses(key, IfNoneMatch="*") and self._refuses(key, IfMatch='"0"')
        finally:
            self._client.delete_object(**self._address(key))

    def _refuses(self, key: str, **condition: str) -> bool:
        try:
            self._upload(key, b"", **condition)
        except ClientError as error:
            if code_of(error) in CONDITION_FAILED:
                return True
            if status_of(error) != 501:  # some stores say that they do not know the header
                raise
        return False

    def _bucket_is_missing(self) -> bool:
        if self._worked:
            return False
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            return status_of(error) == 404  # others, such as 403, do not tell
        return False

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn botocore's errors into ours."""
        try:
            yield
            self._worked = True
        except (ClientError, BotoCoreError) as error:
            raise self._explain(key, error) from None

    def _explain(self, key: str, error: ClientError | BotoCoreError) -> Exception:
        where = self._where(key)
        with suppress(ClientError, BotoCoreError):
            if isinstance(error, ClientError) and code_of(error) in FORBIDDEN and self._bucket_is_missing():
                return missing_bucket(where, self._bucket)
        return explain(error, where, self._bucket, self._link.host, self._worked)


def _split(uri: str) -> tuple[str, str]:
    """Bucket and prefix of the address; the prefix is empty or ends with "/". Raises `BadInput`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if "@" in bucket:  # not quoted: it may be a secret
        raise BadInput("credentials do not belong in the address of a run; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not bucket or (prefix and not is_key(prefix)):
        raise BadInput(f"{uri} is no address of a run; it looks like s3://bucket/prefix")
    return bucket, f"{prefix}/" if prefix else ""
