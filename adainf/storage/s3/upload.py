"""Uploads to S3, in one request or multipart, with what the store supports: checksums and conditional writes."""

from __future__ import annotations

import base64
import hashlib
import secrets
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from adainf.errors import AdaInfWarning
from adainf.storage.base import PROBE
from adainf.storage.s3.client import S3Client
from adainf.storage.s3.errors import CONDITION_FAILED, code_of, is_unsupported, status_of
from adainf.storage.s3.response import etag_of

MULTIPART_OVER_BYTES = 64 << 20
PART_BYTES = 32 << 20
_CONCURRENT_PARTS = 4


class Uploader:
    """Uploads to one store. What it supports is detected once, by its responses.

    Each upload carries a SHA-256, which the store verifies, unless botocore is set to ``request_checksum_calculation =
    when_required``. A store that refuses the header gets uploads without it, after a warning.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._checksums: bool | None = None  # None: not known yet
        self._conditions: bool | None = None

    def upload(self, s3: S3Client, address: Mapping[str, str], data: bytes, condition: Mapping[str, str]) -> str:
        """Write the object at `address` (Bucket, Key) under `condition` (IfNoneMatch or IfMatch); return its ETag.

        Over 64 MiB it is a multipart upload in parts of 32 MiB; the condition applies to its completion. Raises botocore's
        errors.
        """

        def send(checksum: bool) -> str:
            return s3.call(lambda client: _upload(client, address, data, condition, checksum))

        if self._checksums is None and not s3.sends_checksums:
            self._checksums = False
        if self._checksums is not None:
            return send(self._checksums)
        try:
            etag = send(True)
        except ClientError as error:
            if not is_unsupported(error):
                raise
            return self._upload_without_checksum(send, error)
        self._checksums = True
        return etag

    def _upload_without_checksum(self, send: Callable[[bool], str], refusal: ClientError) -> str:
        try:
            etag: str | ClientError = send(False)
        except ClientError as error:
            if is_unsupported(error):
                raise refusal from None  # it is not the checksum that the store refuses
            etag = error
        self._checksums = False
        warnings.warn(
            f"{self._uri}: this store refuses x-amz-checksum headers, so uploads are sent without them; set "
            "AWS_REQUEST_CHECKSUM_CALCULATION=when_required for such a store",
            AdaInfWarning,
            stacklevel=4,
        )
        if isinstance(etag, ClientError):
            raise etag
        return etag

    def supports_conditions(self, s3: S3Client, address: Mapping[str, str]) -> bool:
        """Whether the store honours If-None-Match and If-Match. `address`: of the objects to probe it with."""
        if self._conditions is None:
            self._conditions = self._probe_conditions(s3, {**address, "Key": f"{address['Key']}{PROBE}{secrets.token_hex(8)}"})
            if not self._conditions:
                warnings.warn(
                    f"{self._uri}: this store ignores conditional writes, so each is checked by a read before the write; "
                    "do not run the same stage of this run twice at the same time",
                    AdaInfWarning,
                    stacklevel=4,
                )
        return self._conditions

    def _probe_conditions(self, s3: S3Client, address: Mapping[str, str]) -> bool:
        self.upload(s3, address, b"", {})
        try:
            return self._refuses(s3, address, {"IfNoneMatch": "*"}) and self._refuses(s3, address, {"IfMatch": '"0"'})
        finally:
            s3.call(lambda client: client.delete_object(**address))

    def _refuses(self, s3: S3Client, address: Mapping[str, str], condition: Mapping[str, str]) -> bool:
        try:
            self.upload(s3, address, b"", condition)
        except ClientError as error:
            if code_of(error) in CONDITION_FAILED:
                return True
            # Some stores report an unknown header, or refuse in another way. A conflict is impossible: the key is random.
            if not is_unsupported(error) and status_of(error) not in (304, 405, 409):
                raise
        return False


def _upload(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str], checksum: bool) -> str:
    if len(data) > MULTIPART_OVER_BYTES:
        response = _upload_parts(client, address, data, condition, checksum)
    else:
        response = client.put_object(**address, Body=data, **_checksum_of(data, checksum), **condition)
    return etag_of(response)


def _upload_parts(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str], checksum: bool) -> Any:
    created = client.create_multipart_upload(**address, **({"ChecksumAlgorithm": "SHA256"} if checksum else {}))
    target = {**address, "UploadId": created["UploadId"]}

    def send(start_bytes: int) -> dict[str, Any]:
        number = start_bytes // PART_BYTES + 1
        part = data[start_bytes : start_bytes + PART_BYTES]
        sha256 = _checksum_of(part, checksum)
        response = client.upload_part(**target, PartNumber=number, Body=part, **sha256)
        return {"PartNumber": number, "ETag": response["ETag"], **sha256}

    try:
        with ThreadPoolExecutor(_CONCURRENT_PARTS) as pool:
            parts = list(pool.map(send, range(0, len(data), PART_BYTES)))
        return client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:  # also Ctrl-C: incomplete uploads cost storage
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(**target)
        raise


def _checksum_of(data: bytes, wanted: bool) -> dict[str, str]:
    return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()} if wanted else {}
