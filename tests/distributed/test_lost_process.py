"""One process fails: the others stop at once, with a message of ours, and whose fault it is stays visible."""

import time
from dataclasses import replace

import pytest
from processes import run_processes
from test_step import BASE
from torch import distributed

from unpg.config import from_dict
from unpg.data import Loader
from unpg.distributed import lost_peer
from unpg.errors import DataError
from unpg.train import TrainConfig, TrainingError, loop, train
from unpg.train.step import Stepper

STEP = 2
FAULTS = {
    "data": DataError("image 7 is gone."),
    "memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    "program": KeyError("our own mistake"),
    "preparing": DataError("the data are elsewhere."),
    "saving": RuntimeError("our own mistake"),
}


def fail(where):
    """From now on something fails in this process, which is the test's own."""
    error = FAULTS[where]

    def at_once(*_, **__):
        raise error

    if where == "data":
        real = Loader.epoch

        def epoch(self, number, **options):
            for i, batch in enumerate(real(self, number, **options)):
                if number == 1 and i == 1:
                    raise error
                yield batch

        Loader.epoch = epoch
    elif where == "preparing":
        loop.begin = at_once
    elif where == "saving":
        loop.take = at_once
    else:
        call = Stepper.__call__
        Stepper.__call__ = lambda self, batch, epoch, step: (
            at_once() if step == STEP else call(self, batch, epoch, step)
        )


def message(world, run, where, store):
    """What a run says, and how long it took to say it."""
    if store is not None:
        world = replace(world, store=distributed.FileStore(str(store), world.size))
    if world.rank == 1:
        fail(where)
    began = time.monotonic()
    config = from_dict(TrainConfig, BASE | {"epochs": 30, "timeout": 60, "checkpoint": {"every_steps": 2}})
    try:
        train(config, run, world=world)
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic() - began
    return None


@pytest.mark.parametrize("where", ["data", "saving", pytest.param("memory", marks=pytest.mark.slow)])
def test_the_others_notice_and_say_how_to_go_on(where, tmp_path):
    told = run_processes(3, tmp_path / "meeting", message, tmp_path / "run", where, tmp_path / "store")
    kind, text, _ = told[1]
    assert str(FAULTS[where]) in text
    if where != "saving":
        assert kind == {"data": "DataError", "memory": "TrainingError"}[where]
        assert text.startswith("Process 1 of 3: ")
        assert "--resume" in text
    for rank in 0, 2:
        kind, text, seconds = told[rank]
        assert kind == "TrainingError", text
        assert text.startswith(f"Process {rank} of 3: Process 1 has gone")
        assert "Go on with: torchrun --nproc-per-node 3 " in text
        assert "--resume" in text
        assert seconds < 15, "run_processes waits 30 seconds for an answer"


@pytest.mark.parametrize("where", ["preparing", pytest.param("program", marks=pytest.mark.slow)])
def test_without_a_store_nobody_is_named(where, tmp_path):
    told = run_processes(2, tmp_path / "meeting", message, tmp_path / "run", where, None)
    assert told[1][:2] == (type(FAULTS[where]).__name__, str(FAULTS[where]))
    kind, text, seconds = told[0]
    assert kind == "TrainingError", text
    assert text.startswith("Process 0 of 2: Another process has gone")
    assert ("start the run again" in text) == (where == "preparing")
    assert seconds < 15


def test_faults_of_the_program_are_not_taken_for_a_lost_process():
    gloo = "[.../gloo/transport/tcp/pair.cc:1] "
    assert lost_peer(RuntimeError(gloo + "Connection closed by peer [127.0.0.1]:1"))
    assert lost_peer(RuntimeError(gloo + "Timed out waiting 30000ms for recv operation to complete"))
    assert lost_peer(distributed.DistBackendError("NCCL error in ...: ncclRemoteError: A call failed"))
    assert not lost_peer(RuntimeError(gloo + "op.preamble.length <= op.nbytes. 8 vs 4"))
    assert not lost_peer(distributed.DistBackendError("NCCL error in ...: ncclInvalidUsage: wrong use"))
    assert not lost_peer(RuntimeError("Connection closed by peer"))
    assert not lost_peer(ValueError(gloo + "Connection closed by peer"))
    error = DataError("The checkpoint could not be written.")
    error.__cause__ = RuntimeError(gloo + "Connection reset by peer")
    assert lost_peer(error)
    assert not lost_peer(TrainingError("Loss or gradient was not finite"))
