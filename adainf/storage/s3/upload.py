"""One upload to S3, in one request or multipart, with a SHA-256 that the store verifies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

MULTIPART_OVER_BYTES = 64 << 20
PART_BYTES = 32 << 20
_CONCURRENT_PARTS = 4


def upload(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str]) -> str:
    """Write the object at `address` (Bucket, Key) under `condition` (IfNoneMatch or IfMatch); return its ETag.

    Over 64 MiB it is a multipart upload in parts of 32 MiB; the condition applies to its completion. Raises botocore's errors.
    """
    if len(data) > MULTIPART_OVER_BYTES:
        response = _upload_parts(client, address, data, condition)
    else:
        response = client.put_object(**address, Body=data, ChecksumSHA256=_sha256_base64(data), **condition)
    return str(response["ETag"])


def _upload_parts(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str]) -> Any:
    created = client.create_multipart_upload(**address, ChecksumAlgorithm="SHA256")
    target = {**address, "UploadId": created["UploadId"]}

    def send(start_bytes: int) -> dict[str, Any]:
        number = start_bytes // PART_BYTES + 1
        part = data[start_bytes : start_bytes + PART_BYTES]
        sha256 = _sha256_base64(part)
        response = client.upload_part(**target, PartNumber=number, Body=part, ChecksumSHA256=sha256)
        return {"PartNumber": number, "ETag": response["ETag"], "ChecksumSHA256": sha256}

    try:
        with ThreadPoolExecutor(_CONCURRENT_PARTS) as pool:
            parts = list(pool.map(send, range(0, len(data), PART_BYTES)))
        return client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:  # also Ctrl-C: incomplete uploads cost storage
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(**target)
        raise


def _sha256_base64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
