"""The states of an unfinished stage: uploaded while its work goes on, the newest few kept, by one start at a time."""

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
    """The checkpoints of the artifact `folder`: ``FOLDER/checkpoints/STEP.safetensors``, of which the `keep` newest stay.

    One process of a launch begins, asks for the newest, saves and deletes; all of them load. `say` is told what was damaged.
    Left as a context, for whatever reason, it waits for the upload under way.
    """

    def __init__(self, run: Run, folder: str, keep: int = 2, log: Callable[[str], None] = print) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: without a checkpoint there is nothing to go on from")
        self._run, self._folder, self._keep, self._log = run, folder, keep, log
        self._prefix = f"{folder}/checkpoints/"
        self._attempt_key = f"{self._prefix}attempt.json"
        self._attempt = Attempt(run, self._attempt_key)
        self._upload: _Upload | None = None

    def begin(self) -> None:
        """Take over from any other start of the stage: what it still tries to save, delete or commit is refused."""
        self._attempt.begin()

    def check(self) -> None:
        """To be called before a commit. Raises `Superseded` where another start has taken over."""
        self._attempt.check()

    def newest(self) -> int | None:
        """The step of the newest whole checkpoint, None without one; `say` is told of each newer one that is damaged."""
        damaged = False
        for step in reversed(self._steps()):
            try:
                self._read(step)
                return step
            except Corrupt as error:
                damaged = True
                self._log(f"{self._locate(step)} is damaged ({error}); passed over")
            except NotFound:  # the start before was just deleting it
                continue
        if damaged:
            self._log(f"{self._run.locate(self._prefix)} holds no whole checkpoint; starting from step 0")
        return None

    def load(self, step: int) -> tuple[dict[str, Tensor], Any]:
        """The tensors and the extra that were saved at that step, which `newest` gave.

        Raises `BadInput` where they are damaged or another artifact's, `Superseded` where another start has deleted them.
        """
        try:
            return self._read(step)
        except Corrupt as error:
            raise BadInput(f"{self._locate(step)} is damaged ({error}); delete it and run its stage again") from None
        except NotFound:
            raise Superseded(
                f"another start of this stage has taken over and deleted {self._locate(step)}; this one stops"
            ) from None

    def save(self, step: int, tensors: dict[str, Tensor], extra: Any) -> None:
        """Copy the state to the CPU's memory now; encode and upload it while the caller goes on.

        `extra` is any JSON value. At most one upload is under way, so that there is at most one copy: a second save waits
        for the first, and raises what it raised (`Superseded`, or an error of the store).
        """
        self.wait()
        held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._upload = _Upload(partial(self._store, step, held, copy.deepcopy(extra)))
        self._upload.start()

    def wait(self) -> None:
        """Return once what was saved is in the store. Raises what its upload raised."""
        error = self._settle()
        if error is not None:
            raise error

    def delete(self) -> None:
        """The stage has ended: remove all that is kept for an unfinished one.

        Raises `Superseded` where another start has taken over. A process that has not begun removes what others left behind
        an artifact that is finished, and so ends them, too.
        """
        self._settle()
        # The fence goes last: as long as there is anything else, a start before this one finds that it is not its own.
        others = [info.key for info in self._run.store.list(self._prefix) if info.key != self._attempt_key]
        for key in [*others, self._attempt_key]:
            if self._attempt.begun:
                self._attempt.check()
            self._run.store.delete(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._settle()  # the reason why the work ended counts, not how this upload did

    def _settle(self) -> BaseException | None:
        """Wait for the upload under way; what it raised."""
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
        if self._attempt.ended():  # during the put, so that nobody else will delete it
            store.delete(key)
        self._attempt.check()
        for other in self._outdated(step):
            self._attempt.check()
            store.delete(self._key(other))

    def _outdated(self, step: int) -> list[int]:
        """All but the `keep` newest up to `step`. A later one is no state of this attempt, which went on from before it: it
        is damaged, or came late from an attempt that was superseded."""
        steps = self._steps()
        kept = [other for other in steps if other <= step][-self._keep :]
        return [other for other in steps if other not in kept]

    def _steps(self) -> list[int]:
        """Of what is stored, damaged or not, in ascending order."""
        names = (info.key.removeprefix(self._prefix) for info in self._run.store.list(self._prefix))
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def _read(self, step: int) -> tuple[dict[str, Tensor], Any]:
        """Raises `NotFound` and `Corrupt`; an error of the store is neither."""
        tensors, extra = parse(self._run.store.get(self._key(step), verify=False))  # it holds a SHA-256 of its own
        if not isinstance(extra, dict) or (extra.get("of"), extra.get("step")) != (self._folder, step):
            raise Corrupt(f"it is not of step {step} of {self._folder}")
        return tensors, extra["state"]

    def _key(self, step: int) -> str:
        return f"{self._prefix}{step:012d}.safetensors"

    def _locate(self, step: int) -> str:
        return self._run.locate(self._key(step))


class _Upload(threading.Thread):
    """`work` aside; the error that it ended with, if any, is kept.

    No daemon: the interpreter would cut one off within torch's C++ at its end, and abort. So the end of a process waits for
    the upload, for as long as the store takes and no longer; and whoever wants its result joins the thread, which has then
    let go of its tensors.
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
