"""What /proc says of a process is true in the middle of its exec too."""

import os
import subprocess

from drivetrain.launch import procfs


def test_a_process_keeps_its_environment_through_an_exec() -> None:
    """Popen returns in the middle of it: of 40 looks most see no environment at first."""
    for number in range(40):
        with subprocess.Popen(["sleep", "60"], env={**os.environ, "MARK": str(number)}) as child:
            found = procfs.environment_has(child.pid, "MARK", str(number))
            child.kill()
        assert found


def test_who_has_no_environment_is_not_waited_for() -> None:
    """A thread of the kernel, a zombie, a process that was started with none, nobody."""
    with subprocess.Popen(["sleep", "60"], env={}) as bare, subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        for pid in (2, zombie.pid, bare.pid, 1 << 30):
            assert not procfs.environment_has(pid, "MARK", "1")
        bare.kill()
