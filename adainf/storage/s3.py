"""Objects in an S3 bucket, or in any store that speaks S3, by boto3.

Credentials, region and endpoint come from where boto3 looks for them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, a profile, or the pod's role. With an endpoint of its own the bucket is put in
the path, not the host name (botocore does so unless the profile says ``addressing_style = virtual``).
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from adainf.exitcodes import BadInput
from adainf.storage.s3_errors import (
    CONDITION_FAILED,
    CONFLICT,
    FORBIDDEN,
    NO_KEY,
    code_of,
    explain,
    host_of,
    missing_bucket,
    retries_of,
    status_of,
)
from adainf.storage.s3_read import pause, read_object
from adainf.storage.s3_write import MULTIPART_OVER_BYTES, upload
from adainf.storage.store import PROBE, NotFound, ObjectInfo, PreconditionFailed, check_key, is_key


class S3Store:
    """The store at ``s3://bucket/prefix``. Safe among threads, processes (also forked ones) and machines.

    Requests are repeated up to `attempts` times with full jitter; a body that breaks off is taken up where it stopped.
    Puts carry a SHA-256 that the store checks; gets check it where the store returns it (a multipart object's sum is
    one over its parts, and is not checked: manifests hold the sum of the whole).

    **A lost answer.** A conditional put may succeed while its answer is lost; repeated, it then finds its own object
    and is refused. So a refusal counts as success where this call was repeated *and* the object holds these very bytes.
    A rival who put the same bytes at that moment is told the same, which is as true for both.

    **A store without conditional writes** is found out by a probe before the first conditional put. There the condition
    is checked by HEAD before the PUT, with a warning: two writers at the same instant may then both win. Artifacts are
    deterministic, so both write the same bytes, and a reader never sees a part.

    Errors that a user can mend are raised as `BadInput`, others as `AdaInfError`; neither holds a credential.
    """

    def __init__(self, uri: str, *, attempts: int = 8, connect_timeout_s: float = 5.0, read_timeout_s: float = 10.0) -> None:
        self._bucket, self._prefix = _split(uri)
        self.uri = uri
        self._attempts = attempts
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._client_of_process: tuple[int, Any] | None = None
        self._conditional: bool | None = None  # whether the store honours conditions; None: not tried yet
        self._worked = False  # a call has succeeded: bucket, credentials and endpoint are right

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises `NotFound`, `BadInput`."""
        check_key(key)

        def fetch(arrived_bytes: int, etag: str | None) -> Any:
            if etag is None:
                return self._client.get_object(**self._address(key), ChecksumMode="ENABLED")
            return self._client.get_object(**self._address(key), Range=f"bytes={arrived_bytes}-", IfMatch=etag)

        with self._explained(key):
            return read_object(fetch, self._attempts)

    def get_range(self, key: str, start_bytes: int, size_bytes: int) -> bytes:
        """Exactly `size_bytes` bytes from `start_bytes` on. Raises `NotFound`, `BadInput`; `ValueError` past the end."""
        check_key(key)
        if start_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._where(key)}: {size_bytes} bytes from {start_bytes} on is no range")
        end = start_bytes + size_bytes

        def fetch(arrived_bytes: int, etag: str | None) -> Any:
            same = {} if etag is None else {"IfMatch": etag}
            byte_range = f"bytes={start_bytes + arrived_bytes}-{end - 1}"
            return self._client.get_object(**self._address(key), Range=byte_range, **same)

        with self._explained(key):
            try:
                # HTTP has no empty range.
                data = read_object(fetch, self._attempts) if size_bytes else self._nothing(key, start_bytes)
            except ClientError as error:
                if status_of(error) != 416:
                    raise
                data = None
        if data is None or len(data) != size_bytes:
            raise ValueError(f"{self._where(key)} ends before byte {end}")
        return data

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
        return self.__dict__ | {"_client_of_process": None}

    @property
    def _client(self) -> Any:
        """This process's client: a forked child must not write into its parent's connections."""
        if self._client_of_process is None or self._client_of_process[0] != os.getpid():
            self._client_of_process = (os.getpid(), self._connect())
        return self._client_of_process[1]

    def _connect(self) -> Any:
        connect_s, read_s = self._timeouts_s
        config = Config(
            signature_version="s3v4",
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=32,
            tcp_keepalive=True,
            # We give SHA-256 ourselves; botocore's own CRC32 trailers are unknown to many stores.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # The default session is not safe among threads.
            return Session().client("s3", config=config)
        except ValueError:
            raise BadInput(f"{self.uri}: AWS_ENDPOINT_URL_S3 is no address; it looks like https://host:port") from None

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _nothing(self, key: str, start_bytes: int) -> bytes | None:
        """The empty range at `start_bytes`, or None past the end."""
        info = self.head(key)
        if info is None:
            raise NotFound(f"{self._where(key)} does not exist")
        return b"" if start_bytes <= info.size_bytes else None

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
        for attempt in range(1, self._attempts + 1):
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
                if code not in CONFLICT or attempt == self._attempts:
                    raise
            pause(attempt)  # another writer was at it in the same moment
        raise AssertionError("unreachable")

    def _if_holds(self, key: str, data: bytes) -> ObjectInfo | None:
        info = self.head(key)
        return info if info is not None and info.size_bytes == len(data) and self.get(key) == data else None

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
        made = self._client_of_process
        host = host_of(made[1].meta.endpoint_url) if made else "S3"
        with suppress(ClientError, BotoCoreError):
            if isinstance(error, ClientError) and code_of(error) in FORBIDDEN and self._bucket_is_missing():
                return missing_bucket(where, self._bucket)
        return explain(error, where, self._bucket, host, self._worked)


def _split(uri: str) -> tuple[str, str]:
    """Bucket and prefix of the address; the prefix is empty or ends with "/". Raises `BadInput`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if "@" in bucket:  # not quoted: it may be a secret
        raise BadInput("credentials do not belong in the address of a run; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not bucket or (prefix and not is_key(prefix)):
        raise BadInput(f"{uri} is no address of a run; it looks like s3://bucket/prefix")
    return bucket, f"{prefix}/" if prefix else ""
