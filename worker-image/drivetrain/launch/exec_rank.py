"""Become a rank's command: `python -I -S exec_rank.py LAUNCHER_PID COMMAND...` in the process that the rank will be.

PR_SET_PDEATHSIG must be set between fork and exec. A `preexec_fn` would run Python in a forked copy of the launcher
(locks held by other threads stay locked for ever, and it rules out vfork); this costs one interpreter start without
site, about 16 ms, and shares nothing. Imports nothing of ours, so that the user's PYTHONPATH cannot matter.
"""

import ctypes
import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process's life to the launcher's, undo what Python changed, and exec."""
    launcher, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != launcher:
        os._exit(1)  # It died before the line above took effect.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Ignored by Python, and exec would hand that on.
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        # Only the launcher can tell this from a command that exits with the same code by itself.
        failure = {"type": "exec_failed", "message": f"cannot start {command[0]!r}: {error.strerror}"}
        os.write(int(os.environ["DRIVETRAIN_LINK_FD"]), json.dumps(failure).encode() + b"\n")
        os._exit(127)


if __name__ == "__main__":
    main()
