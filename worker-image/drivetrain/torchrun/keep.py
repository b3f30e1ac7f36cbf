"""`python keep.py KIND TARGET [ARGUMENTS]`: a keeper, and in its forks the script. At the outermost level, so that it
ends as `python train.py` does.

Started as a file, not by `-m`: that would put the working folder before everything else, and a file there that is
called like one of Python's modules would end the keeper. A script has its own folder there from its start on.
"""

import sys
from pathlib import Path
from typing import cast

if __name__ == "__main__":
    _ROOT = Path(__file__).parents[2]
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]  # this folder
    elif str(_ROOT) not in sys.path:
        # PYTHONPATH, by which a brought runtime is found, is nothing to an isolated interpreter.
        sys.path += [str(_ROOT), str(_ROOT.with_name("last"))]

    from drivetrain.torchrun.keeper import keep
    from drivetrain.torchrun.program import Kind, Program
    from drivetrain.torchrun.script import run

    _PROGRAM = Program(cast(Kind, sys.argv[1]), sys.argv[2], tuple(sys.argv[3:]))
    run(_PROGRAM, keep(_PROGRAM))
