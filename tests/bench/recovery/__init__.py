"""How long does training stand still when something dies, and is anything lost?

Jobs of three workers train while processes are killed and frozen, at random moments and at chosen points of the step.
Time: from the kill to the first step that all members of a later membership have finished, minus the median step of
that membership (`raw` is without the subtraction).
Beside it, in the same run, the same script under torchrun. Run by `make bench-recovery`; `--help` has smaller runs.
"""
