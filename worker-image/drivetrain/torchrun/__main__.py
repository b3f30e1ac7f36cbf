"""`python -m drivetrain.torchrun KIND TARGET [ARGUMENTS]`: a keeper, and in its forks the script. At the outermost
level, so that it ends as `python train.py` does."""

import sys
from typing import cast

from drivetrain.torchrun.keeper import keep
from drivetrain.torchrun.program import Kind, Program
from drivetrain.torchrun.script import run

if __name__ == "__main__":
    _PROGRAM = Program(cast(Kind, sys.argv[1]), sys.argv[2], tuple(sys.argv[3:]))
    run(_PROGRAM, keep(_PROGRAM))
