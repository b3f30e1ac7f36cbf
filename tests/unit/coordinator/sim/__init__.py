"""Whole jobs under a simulated clock: model ranks and launchers, a lying network, and the real membership machine.

Reproduce a failing seed with `python -m unit.coordinator.sim SEED 1 [FAULTS]` (from tests/, PYTHONPATH=.:../operator).
"""
