"""Every way in which a script can end: did it finish or give up, what was told, and is the process gone?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from unit.runtime.scripts import End, Scripts

BEGIN: Final = """
import os, signal, sys, threading, time
import torch, drivetrain, drivetrain.ending

class Data:
    def __len__(self): return 8
    def __getitem__(self, index): return torch.ones(2)

run = drivetrain.start(defaults={"steps": 2, "global_batch": 4})
def prepare():
    run.prepare(model=torch.nn.Linear(2, 1), optimizer=lambda p: torch.optim.SGD(p, 0.1), data=Data())
def train(stop_at=9, stop=lambda: None):
    for batch in run.batches():
        if batch.step == stop_at: stop()
        run.step(batch, lambda model, x: model(x).sum())
def fail(kind=ValueError): raise kind("the cause")
def deep(): fail()
class Stop(SystemExit): pass
def hurry(): drivetrain.ending.LEFT_BEHIND_SECONDS = 0.3
def forgotten(name, seconds=60):
    hurry()
    threading.Thread(target=time.sleep, args=(seconds,), name=name).start()
prepare()
"""
FORK: Final = """
def forked(child):
    pid = os.fork()
    if pid == 0: child(); sys.exit(7)
    began = time.monotonic()
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < began + 20: time.sleep(0.01)
    if not found[0]: os.kill(pid, signal.SIGKILL)
    print("the child ended with", os.waitstatus_to_exitcode(found[1]) if found[0] else "nothing", flush=True)
"""


@dataclass(frozen=True)
class Case:
    """A script after its beginning, and how it must end."""

    script: str
    code: int = 0
    finished: bool = True
    told: str = ""
    """In what comes over the link; empty: nothing does."""
    said: str = ""
    """In what it prints."""


def gave_up(script: str, told: str, code: int = 1, said: str = "") -> Case:
    """A script that must not count as finished."""
    return Case(script, code, finished=False, told=told, said=said)


EARLY = "SystemExit was raised directly"
CASES: Final[dict[str, Case]] = {
    "the end": Case("train()"),
    "finish() and more": Case("train(); run.finish(); print('more')", said="more"),
    "nothing trained": Case(""),
    "break": Case("for batch in run.batches(): break"),
    "an iterator that is kept": Case("batches = run.batches(); next(batches)"),
    "return from the loop": Case("def main():\n  for batch in run.batches(): return\nmain()"),
    # exceptions
    "an exception": gave_up("train(); fail()", "ValueError: the cause", said="ValueError: the cause"),
    "in the loop": gave_up("train(1, fail)", "ValueError: the cause"),
    "deep in a function": gave_up("train(1, deep)", "in deep"),
    "with a generator alive": gave_up("batches = run.batches(); next(batches); fail()", "ValueError: the cause"),
    "through finally": gave_up("try: train(1, fail)\nfinally: print('tidy')", "ValueError", said="tidy"),
    "KeyboardInterrupt": gave_up("train(1, lambda: fail(KeyboardInterrupt))", "KeyboardInterrupt", -2),
    "SIGINT": gave_up(
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "train(1, lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)))",
        "KeyboardInterrupt",
        -2,
    ),
    "an exception without a text": gave_up(
        "class Mute(Exception):\n  def __str__(self): raise OSError\nraise Mute", "Mute"
    ),
    "caught": Case("try: train(1, fail)\nexcept ValueError: print('caught')", said="caught"),
    "printed by hand": Case("try: fail()\nexcept ValueError: sys.excepthook(*sys.exc_info())\ntrain()", said="cause"),
    # excepthooks
    "a hook instead of ours": gave_up("sys.excepthook = lambda *a: print('mine'); fail()", "the cause", said="mine"),
    "a hook that chains": gave_up(
        "old = sys.excepthook\nsys.excepthook = lambda *a: old(*a)\nfail()", "the cause", said="ValueError: the cause"
    ),
    "a hook that fails": gave_up("sys.excepthook = lambda *a: 1 / 0; fail()", "the cause"),
    "a hook that ends all": gave_up("sys.excepthook = lambda *a: os._exit(9); fail()", "the cause", 9),
    "no hook": gave_up("del sys.excepthook; fail()", "the cause"),
    # sys.exit
    "sys.exit()": Case("train(); sys.exit()"),
    "sys.exit(0) in the loop": Case("train(1, lambda: sys.exit(0))"),
    "sys.exit(3)": gave_up("train(); sys.exit(3)", "at step 2 of 2: sys.exit(3)", 3),
    "sys.exit(3) in the loop": gave_up("train(1, lambda: sys.exit(3))", "at step 1 of 2: sys.exit(3)", 3),
    "sys.exit of a text": gave_up("sys.exit('no data')", "sys.exit('no data')", 1, said="no data"),
    "sys.exit(0.0)": gave_up("sys.exit(0.0)", "sys.exit(0.0)", 1),
    "sys.exit(3) through finally": gave_up("try: sys.exit(3)\nfinally: print('tidy')", "sys.exit(3)", 3),
    "sys.exit(3), caught": Case("try: sys.exit(3)\nexcept SystemExit: pass"),
    "sys.exit(3), caught, then an exception": gave_up(
        "try: sys.exit(3)\nexcept SystemExit: pass\nfail()", "ValueError: the cause"
    ),
    "sys.exit(main())": Case("sys.exit(train())"),
    "exit(3)": gave_up("exit(3)", "sys.exit(3)", 3),
    "quit()": Case("train(); quit()"),
    "sys.exit(3) in a thread": Case("thread = threading.Thread(target=sys.exit, args=(3,)); thread.start(); train()"),
    # SystemExit without sys.exit
    "raise SystemExit in the loop": gave_up("train(1, lambda: fail(SystemExit))", EARLY, 1, said="the cause"),
    "a subclass in the loop": gave_up("train(1, lambda: (_ for _ in ()).throw(Stop(3)))", EARLY, 3),
    "raise SystemExit before the loop": gave_up("raise SystemExit(2)", EARLY, 2),
    "raise SystemExit(main())": Case("raise SystemExit(train())"),
    "raise SystemExit after a break": Case("for batch in run.batches(): break\nraise SystemExit"),
    # without Python's way out
    "os._exit": Case("train(); os._exit(4)", 4, finished=False),
    "a signal": Case("os.kill(os.getpid(), signal.SIGTERM)", -15, finished=False),
    # what is left behind
    "a thread": Case("forgotten('uploader'); train()", said="thread 'uploader'"),
    "a thread, and an exception": gave_up("forgotten('uploader'); fail()", "the cause", said="thread 'uploader'"),
    "a thread, and sys.exit(3)": gave_up("forgotten('up'); sys.exit(3)", "sys.exit(3)", 3, said="thread 'up'"),
    "a thread that ends soon": Case(
        "def late(): time.sleep(0.1); print('late')\nthreading.Thread(target=late).start(); train()", said="late"
    ),
    "a daemon": Case("threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); train()"),
    "a thread pool": Case(
        "import concurrent.futures as futures\nhurry()\n"
        "futures.ThreadPoolExecutor(1, 'pool').submit(time.sleep, 60); train()",
        said="thread 'pool_0'",
    ),
    "a thread's exception": Case("thread = threading.Thread(target=fail); thread.start(); train()", said="the cause"),
    "a thread, and atexit": Case(
        "import atexit\natexit.register(print, 'goodbye'); forgotten('uploader'); train()", said="goodbye"
    ),
    "a child process": Case(
        "import multiprocessing\nhurry()\n"
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), name='kid').start(); train()",
        said="child processes kid",
    ),
    "atexit that hangs": Case(
        "import atexit\nhurry(); atexit.register(time.sleep, 60); train()", said="atexit goes on"
    ),
    # forked children
    "a fork that exits": Case(FORK + "forked(lambda: None); train()", said="the child ended with 7"),
    "after training": Case(FORK + "train(); forked(lambda: None)", said="the child ended with 7"),
    "in the loop, forked": Case(FORK + "train(1, lambda: forked(lambda: None))", said="the child ended with 7"),
    "a fork that ends well": Case(FORK + "train(); forked(sys.exit)", said="the child ended with 0"),
    "a fork that ends as a script": Case(
        FORK + "train(); kid = os.fork() == 0\nif not kid: os.wait(); print('the child is gone')",
        said="the child is gone",
    ),
    "a fork beside a group of the script": Case(
        FORK
        + "for batch in run.batches():\n  run.step(batch, lambda model, x: (run.process_group, model(x).sum())[1])\n"
        "forked(sys.exit)",
        said="the child ended with 0",
    ),
    "a fork that raises": Case(FORK + "train(); forked(fail)", said="the child ended with 1"),
    "a fork with its own hook": Case(
        FORK + "sys.excepthook = lambda *a: print('mine')\ntrain(); forked(fail)", said="the child ended with 1"
    ),
    "a fork of a fork": Case(FORK + "train(); forked(lambda: forked(lambda: None))", said="the child ended with 7"),
    "a fork of multiprocessing": Case(
        "import multiprocessing\nkid = multiprocessing.get_context('fork').Process(target=sys.exit, args=(5,))\n"
        "train(); kid.start(); kid.join(5); print('kid', kid.exitcode)",
        said="kid 5",
    ),
}


ALONE: Final = (
    *("the end", "finish() and more", "in the loop", "KeyboardInterrupt", "sys.exit(3)", "raise SystemExit(main())"),
    *("a thread", "a thread, and sys.exit(3)", "a child process", "after training", "a fork that ends well"),
)


def check(name: str, end: End, *, job: bool) -> None:
    """Compare with the table."""
    case = CASES[name]
    assert end.code == case.code, end.output
    assert case.said in end.output
    if job:
        assert end.finished == case.finished
        assert bool(end.told) == bool(case.told), end.told
        assert case.told in "".join(end.told)


@pytest.mark.parametrize("name", CASES)
def test_a_rank_ends(scripts: Scripts, name: str) -> None:
    check(name, scripts.ended(BEGIN + CASES[name].script, job=True, seconds=60.0), job=True)


IN_A_THREAD: Final = {
    "train()": (True, ""),
    "train(1, fail)": (False, "an exception ended the thread"),
    "train(1, lambda: sys.exit(3))": (False, "at step 1 of 2: sys.exit(3)"),
}


@pytest.mark.parametrize("main", ["thread.join()", "began.wait()", ""])
@pytest.mark.parametrize("script", IN_A_THREAD)
def test_a_script_may_be_in_another_thread(scripts: Scripts, script: str, main: str) -> None:
    """Whether the main thread ends after it, while it trains, or before it began."""
    body = BEGIN + "began.set()\n" + script
    thread = f"thread = threading.Thread(target=exec, args=({body!r}, globals())); thread.start()"
    whole = f"import threading\nbegan = threading.Event()\n{thread}\n{main}"
    end = scripts.ended(whole, job=True, seconds=60.0)
    finished, told = IN_A_THREAD[script]
    assert end.finished == finished, end.output
    assert told in "".join(end.told)


@pytest.mark.parametrize("name", ALONE)
def test_a_script_without_a_job_ends_alike(scripts: Scripts, name: str) -> None:
    check(name, scripts.ended(BEGIN + CASES[name].script, seconds=60.0), job=False)
