"""Scripts that never call `drivetrain.start()`: run as torchrun would run them, started again in place (ADR 0045).

`command.py` and `reading.py` say what a command is, for the launcher; `keeper.py` is the process that a launcher starts
in place of such a script, and `script.py` what becomes of its forks.
"""
