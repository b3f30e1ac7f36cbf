"""Starts scripts as real processes in milliseconds: `python zygote.py FD` forks each from itself, with torch imported.

A forked process runs its script at the outermost level of this file, so that it ends as `python train.py` does: by the
interpreter's own way out, with its exit code. Requests and answers are JSON messages over the socket FD.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress

import torch
import torch._dynamo  # the first optimizer imports it, which takes seconds

import drivetrain.run  # noqa: F401

gc.collect()
gc.freeze()  # else the last collection of each script copies all of this memory
_control = socket.socket(fileno=int(sys.argv[1]))
_control.send(b"ready")
_running: dict[int, int] = {}
_request = None
_fds: list[int] = []
while _request is None:
    if select.select([_control], [], [], 0.005 if _running else 1.0)[0]:
        _data, _fds, *_ = socket.recv_fds(_control, 1 << 20, 2)
        _order = json.loads(_data or b'{"kill": null}')
        if "kill" in _order:
            for _pid, _number in _running.items():
                if _order["kill"] in (None, _number):
                    os.killpg(_pid, signal.SIGKILL)
            if not _data:
                os._exit(0)
            continue
        if (_pid := os.fork()) == 0:
            _request = _order
            break
        _running[_pid] = _order["number"]
        for _fd in _fds:
            os.close(_fd)
    while _running and (_ended := os.waitpid(-1, os.WNOHANG))[0]:
        with suppress(ProcessLookupError):
            os.killpg(_ended[0], signal.SIGKILL)  # what it left behind
        _control.send(json.dumps([_running.pop(_ended[0]), os.waitstatus_to_exitcode(_ended[1])]).encode())

_control.close()
os.setsid()
os.dup2(_fds[0], 1)
os.dup2(_fds[0], 2)
os.close(_fds[0])
for _name in [_name for _name in os.environ if _name.startswith("DRIVETRAIN_")]:
    del os.environ[_name]
os.environ |= _request["environment"]
if len(_fds) > 1:
    os.environ["DRIVETRAIN_LINK_FD"] = str(_fds[1])
torch.set_num_threads(1)
exec(compile(_request["script"], "train.py", "exec"))
