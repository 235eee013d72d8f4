"""When checkpoints are written, which ones stay, and writing them behind training's back."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from torch import distributed

from unpg.train.checkpoint import RunState, prune_checkpoints, save_checkpoint
from unpg.train.config import CheckpointConfig
from unpg.train.tensor_store import Rows

__all__ = ["Saver"]


class Saver:
    """Writes the checkpoints of a run, one after the other.

    With ``asynchronous`` the tensors are copied to the CPU's memory and written by a thread while training goes on.
    The next save waits for the one before, so none overtakes another and there is one copy at most. What went wrong in
    the thread is raised by the next :meth:`save` or :meth:`wait`.

    Args:
        run: The run folder.
        options: How many stay, and whether a thread writes.
        group: Processes that write together: gloo, and for nothing else, since the thread uses it while the main
            thread uses others. None is this process alone.

    Attributes:
        first: Whether this is the one that writes what is written once.
        last: Step of the newest checkpoint, which is not written again.
    """

    def __init__(self, run: Path, options: CheckpointConfig, group: distributed.ProcessGroup | None = None) -> None:
        self.run, self.options, self.group = run, options, group
        self.last: int | None = None
        self.first = group is None or distributed.get_rank(group) == 0
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint") if options.asynchronous else None

    def save(self, step: int, state: RunState, *, best: int | None = None) -> None:
        """Write the state after ``step`` steps, then remove what need not stay; nothing if that step was the last save.

        Args:
            step: Optimizer steps done.
            state: What to write.
            best: Step of the best checkpoint so far, which stays.

        Raises:
            DataError: This checkpoint, or the one before it in the thread, could not be written.
        """
        self.wait()
        if step == self.last:
            return
        if self._thread is None:
            self._write(step, state, best)
        else:
            self._writing = self._thread.submit(self._write, step, _copied(state), best)
        self.last = step

    def wait(self) -> None:
        """Until the thread has written what it was given.

        Raises:
            DataError: It could not.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, state: RunState, best: int | None) -> None:
        save_checkpoint(self.run, step, state, self.group)
        if self.first:
            options = self.options
            prune_checkpoints(self.run, keep=options.keep, keep_every=options.keep_every, best=best)

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits; an error of the thread is raised unless another one is on its way."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if error is None:
            self.wait()


def _copied(state: RunState) -> RunState:
    """The state as it is now: training changes the tensors while the thread writes."""
    tensors = {
        name: replace(part, local=part.local.detach().to("cpu", copy=True))
        if isinstance(part, Rows)
        else part.detach().to("cpu", copy=True)
        for name, part in state.tensors.items()
    }
    return replace(state, tensors=tensors)
