"""One upload to S3, whole or in parts, with a SHA-256 that the store checks."""

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
_PARTS_AT_ONCE = 4


def upload(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str]) -> str:
    """Write the object at `address` (Bucket, Key) under `condition` (IfNoneMatch or IfMatch); its ETag.

    Over 64 MiB in parts of 32 MiB, with the condition on their completion. Raises botocore's errors.
    """
    if len(data) > MULTIPART_OVER_BYTES:
        answer = _upload_parts(client, address, data, condition)
    else:
        answer = client.put_object(**address, Body=data, ChecksumSHA256=_sha256_base64(data), **condition)
    return str(answer["ETag"])


def _upload_parts(client: Any, address: Mapping[str, str], data: bytes, condition: Mapping[str, str]) -> Any:
    begun = client.create_multipart_upload(**address, ChecksumAlgorithm="SHA256")
    target = {**address, "UploadId": begun["UploadId"]}

    def send(start_bytes: int) -> dict[str, Any]:
        number = start_bytes // PART_BYTES + 1
        part = data[start_bytes : start_bytes + PART_BYTES]
        sha256 = _sha256_base64(part)
        answer = client.upload_part(**target, PartNumber=number, Body=part, ChecksumSHA256=sha256)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": sha256}

    try:
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            parts = list(pool.map(send, range(0, len(data), PART_BYTES)))
        return client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:  # also Ctrl-C: parts that nobody completes are paid for all the same
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(**target)
        raise


def _sha256_base64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
