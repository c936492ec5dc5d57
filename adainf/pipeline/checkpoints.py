"""Checkpoints of an unfinished stage: uploaded in the background; the newest few are kept."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from torch import Tensor

from adainf.errors import BadInput, Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.fencing import Attempt
from adainf.pipeline.serialization import Corrupt, encode, parse
from adainf.storage import NotFound

_NAME = re.compile(r"([0-9]{12})\.safetensors")


class Checkpoints:
    """The checkpoints of the artifact `folder`: ``FOLDER/checkpoints/STEP.safetensors``; the `keep` newest are kept.

    One process of a launch calls `begin`, `newest`, `save` and `delete`; all of them call `load`. `log` receives a line per
    corrupt checkpoint. The end of a ``with`` block waits for the upload in flight.
    """

    def __init__(self, run: Run, folder: str, keep: int = 2, log: Callable[[str], None] = print) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: it must be 1 or more, to have a checkpoint to resume from")
        self._run, self._folder, self._keep, self._log = run, folder, keep, log
        self._prefix = f"{folder}/checkpoints/"
        self._attempt_key = f"{self._prefix}attempt.json"
        self._attempt = Attempt(run, self._attempt_key)
        self._upload: _Upload | None = None

    def begin(self) -> None:
        """Take over from all other attempts of the stage: fence off their saves, deletes and commits."""
        self._attempt.begin()

    def check(self) -> None:
        """Call it before a commit. Raises `Superseded` if a newer attempt has taken over."""
        self._attempt.check()

    def newest(self) -> int | None:
        """The step of the newest intact checkpoint, or None. Newer corrupt ones are logged and skipped."""
        found_corrupt = False
        for step in reversed(self._steps()):
            try:
                self._read(step)
                return step
            except Corrupt as error:
                found_corrupt = True
                self._log(f"{self._locate(step)} is corrupt ({error}); skipped")
            except NotFound:  # deleted concurrently by the previous attempt
                continue
        if found_corrupt:
            self._log(f"{self._run.locate(self._prefix)} has no intact checkpoint; starting from step 0")
        return None

    def load(self, step: int) -> tuple[dict[str, Tensor], Any]:
        """The tensors and `extra` of the checkpoint of that step, as returned by `newest`.

        Raises `BadInput` if it is corrupt or of another artifact, `Superseded` if a newer attempt has deleted it.
        """
        try:
            return self._read(step)
        except Corrupt as error:
            raise BadInput(f"{self._locate(step)} is corrupt ({error}); delete it and run its stage again") from None
        except NotFound:
            raise Superseded(
                f"a newer attempt of this stage has taken over and deleted {self._locate(step)}; wait for that one"
            ) from None

    def save(self, step: int, tensors: dict[str, Tensor], extra: Any) -> None:
        """Copy the state to CPU memory; encode and upload it in the background.

        `extra` is any JSON value. At most one upload is in flight, so there is at most one copy: the next save waits for it,
        and raises its error (`Superseded`, or an error of the store).
        """
        self.wait()
        held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._upload = _Upload(partial(self._store, step, held, copy.deepcopy(extra)))
        self._upload.start()

    def wait(self) -> None:
        """Wait until the last save is stored. Raises the error of its upload."""
        error = self._join_upload()
        if error is not None:
            raise error

    def delete(self) -> None:
        """The stage is finished: delete its checkpoints and its fencing token.

        Raises `Superseded` if a newer attempt has taken over. A process that has not begun cleans up after a finished artifact,
        which also fences off all attempts.
        """
        self._join_upload()
        # The token goes last: while checkpoints exist, stale attempts must find a token that is not theirs.
        others = [info.key for info in self._run.store.list(self._prefix) if info.key != self._attempt_key]
        for key in [*others, self._attempt_key]:
            if self._attempt.begun:
                self._attempt.check()
            self._run.store.delete(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._join_upload()  # an exception of the block takes precedence over one of the upload

    def _join_upload(self) -> BaseException | None:
        """Wait for the upload in flight; return its error."""
        upload = self._upload
        if upload is None:
            return None
        upload.join()
        self._upload = None
        return upload.error

    def _store(self, step: int, tensors: dict[str, Tensor], extra: Any) -> None:
        data = encode(tensors, {"of": self._folder, "step": step, "state": extra})
        store, key = self._run.store, self._key(step)
        self._attempt.check()
        store.put(key, data)
        if self._attempt.ended():  # finished during the put: no other process will delete it
            store.delete(key)
        self._attempt.check()
        for other in self._outdated(step):
            self._attempt.check()
            store.delete(self._key(other))

    def _outdated(self, step: int) -> list[int]:
        """All but the `keep` newest up to `step`. A later one is not of this attempt, which resumed before it: it is corrupt,
        or a late upload of a stale attempt."""
        steps = self._steps()
        kept = [other for other in steps if other <= step][-self._keep :]
        return [other for other in steps if other not in kept]

    def _steps(self) -> list[int]:
        """The steps of all stored checkpoints, intact or corrupt, in ascending order."""
        names = (info.key.removeprefix(self._prefix) for info in self._run.store.list(self._prefix))
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def _read(self, step: int) -> tuple[dict[str, Tensor], Any]:
        """Raises `NotFound` and `Corrupt`; errors of the store are neither."""
        tensors, extra = parse(self._run.store.get(self._key(step), verify=False))  # it contains its own SHA-256
        if not isinstance(extra, dict) or (extra.get("of"), extra.get("step")) != (self._folder, step):
            raise Corrupt(f"it is not the checkpoint of step {step} of {self._folder}")
        return tensors, extra["state"]

    def _key(self, step: int) -> str:
        return f"{self._prefix}{step:012d}.safetensors"

    def _locate(self, step: int) -> str:
        return self._run.locate(self._key(step))


class _Upload(threading.Thread):
    """Runs `work` in the background; `error` is the exception that ended it, if any.

    Not a daemon thread: at exit the interpreter would kill it within torch's C++ code, and abort. So the process waits at exit
    for the upload. After a join the thread has released its tensors.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="checkpoint")
        self.error: BaseException | None = None

    def run(self) -> None:
        """As `threading.Thread`."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
