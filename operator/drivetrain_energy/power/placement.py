"""Where does each gang run, at which cap, so that its work takes the least, without melting or scattering it?

A greedy start, improved by annealing with feasible moves only (move a worker, swap two, another cap): what comes out is
feasible, never worse than greedy, and the same for the same seed. Bounded by a number of moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from drivetrain_energy.job.curve import Point

# Of what a gang costs where it costs the least.
OTHER_RACK = 0.05
OTHER_NODE = 0.01
ONE_NODE = 0.06
"""All of its workers on one: nobody is left to go on from when that is lost."""
HOT = 0.2
"""With no headroom left; nothing from `HEADROOM_C` on."""
HEADROOM_C = 15.0
THROTTLED = 0.5
BROKEN_NODE = 0.02
"""A node with some cards free and some not: the next large gang does not fit."""


@dataclass(frozen=True, slots=True)
class Node:
    """What is free, and what work takes there."""

    name: str
    devices: int
    """Free ones."""
    intensity: float = 1.0
    """Mean over the planned window of what a joule costs there: grams or money, with the zone's PUE."""
    energy: float = 1.0
    """Joules of a step here, over those that the curve says: an older card has more."""
    rack: str = ""
    headroom: float = HEADROOM_C
    """Degrees below its limit; at 0 nothing new goes there."""
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class Gang:
    """A job to be placed with all its workers, or not at all."""

    name: str
    workers: int
    devices: int
    """Of each worker."""
    points: tuple[Point, ...]
    """With that many workers, the caps that it may have."""
    weight: float = 1.0
    beside: tuple[str, ...] = ()
    """Nodes of workers that it has already, and that stay where they are: some of those that are asked about."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one gang is."""

    nodes: tuple[str, ...]
    """A node for each worker, by name."""
    point: Point


Placement = Mapping[str, Placed]
"""By gang; who is not there waits."""


def place(nodes: Sequence[Node], gangs: Sequence[Gang], watts: float | None, seed: int, moves: int = 2000) -> Placement:
    """All gangs that fit, in at most `watts` together."""
    board = _Board(nodes, gangs, watts)
    start = greedy(nodes, gangs, watts)
    return _anneal(board, start, Random(seed), moves) if len(start) and moves > 0 else start


def greedy(nodes: Sequence[Node], gangs: Sequence[Gang], watts: float | None) -> Placement:
    """The largest first, each worker where it costs the least beside those before it."""
    board = _Board(nodes, gangs, watts)
    placed: dict[str, Placed] = {}
    for gang in sorted(gangs, key=lambda gang: (-gang.workers * gang.devices, gang.name)):
        point = min(gang.points, key=_joules)
        free = board.free(placed)
        chosen: list[str] = []
        for _ in range(gang.workers):
            fitting = [name for name in board.names if free[name] >= gang.devices and board.nodes[name].headroom > 0]
            if not fitting:
                break
            chosen.append(min(fitting, key=lambda name: (board.cost(gang, Placed((*chosen, name), point)), name)))
            free[chosen[-1]] -= gang.devices
        trial = {**placed, gang.name: Placed(tuple(sorted(chosen)), point)}
        if len(chosen) == gang.workers and board.feasible(trial):
            placed = trial
    return placed


def score(nodes: Sequence[Node], gangs: Sequence[Gang], placement: Placement) -> float:
    """Less is better; of two placements of the same gangs."""
    return _Board(nodes, gangs, None).score(placement)


def feasible(nodes: Sequence[Node], gangs: Sequence[Gang], watts: float | None, placement: Placement) -> bool:
    """Does it fit?"""
    return _Board(nodes, gangs, watts).feasible(placement)


class _Board:
    """What is asked over and over, by name."""

    def __init__(self, nodes: Sequence[Node], gangs: Sequence[Gang], watts: float | None) -> None:
        self.nodes = {node.name: node for node in sorted(nodes, key=lambda node: node.name)}
        self.names = tuple(self.nodes)
        self.gangs = {gang.name: gang for gang in sorted(gangs, key=lambda gang: gang.name)}
        self.watts = watts
        least = min((node.intensity * node.energy for node in nodes), default=1.0)
        self._best = {gang.name: min(map(_joules, gang.points)) * least for gang in gangs}

    def free(self, placement: Placement) -> dict[str, int]:
        free = {name: node.devices for name, node in self.nodes.items()}
        for name, placed in placement.items():
            for node in placed.nodes:
                free[node] -= self.gangs[name].devices
        return free

    def feasible(self, placement: Placement) -> bool:
        if any(left < 0 for left in self.free(placement).values()):
            return False
        if any(self.nodes[node].headroom <= 0 for placed in placement.values() for node in placed.nodes):
            return False
        return self.watts is None or sum(placed.point.watts for placed in placement.values()) <= self.watts + 1e-9

    def cost(self, gang: Gang, placed: Placed) -> float:
        """What its work takes there over the least that it could, and what is bad about the place."""
        own = [self.nodes[name] for name in placed.nodes]
        mean = sum(node.intensity * node.energy for node in own) / len(own)
        best = self._best[gang.name]
        work = _joules(placed.point) * mean / best if best > 0 else 1.0
        heat = sum(HOT * max(0.0, 1 - node.headroom / HEADROOM_C) ** 2 + THROTTLED * node.throttled for node in own)
        all_nodes = {*placed.nodes, *gang.beside}
        racks = {self.nodes[name].rack for name in all_nodes}
        scattered = OTHER_RACK * (len(racks) - 1) + OTHER_NODE * (len(all_nodes) - 1)
        alone = ONE_NODE if len(all_nodes) == 1 and len(own) + len(gang.beside) > 1 else 0.0
        return gang.weight * (work + heat / len(own) + scattered + alone)

    def score(self, placement: Placement) -> float:
        broken = sum(0 < left < self.nodes[name].devices for name, left in self.free(placement).items())
        return BROKEN_NODE * broken + sum(self.cost(self.gangs[name], placed) for name, placed in placement.items())


def _anneal(board: _Board, start: Placement, random: Random, moves: int) -> Placement:
    names = sorted(start)
    now, now_score = dict(start), board.score(start)
    best, best_score = now, now_score
    hot = 0.05 * max(now_score, 1e-9) / len(names)
    steps: tuple[Callable[[_Board, dict[str, Placed], Sequence[str], Random], dict[str, Placed] | None], ...]
    steps = (_move, _swap, _recap)
    for index in range(moves):
        trial = random.choice(steps)(board, now, names, random)
        if trial is None or not board.feasible(trial):
            continue
        trial_score = board.score(trial)
        heat = hot * 0.001 ** (index / moves)
        if trial_score <= now_score or random.random() < exp((now_score - trial_score) / heat):
            now, now_score = trial, trial_score
            if now_score < best_score - 1e-12:
                best, best_score = now, now_score
    return best


def _move(board: _Board, now: dict[str, Placed], names: Sequence[str], random: Random) -> dict[str, Placed] | None:
    name = random.choice(names)
    placed = now[name]
    return _with(now, name, random.randrange(len(placed.nodes)), random.choice(board.names))


def _swap(board: _Board, now: dict[str, Placed], names: Sequence[str], random: Random) -> dict[str, Placed] | None:
    one, other = random.choice(names), random.choice(names)
    if one == other:
        return None
    first, second = random.randrange(len(now[one].nodes)), random.randrange(len(now[other].nodes))
    changed = _with(now, one, first, now[other].nodes[second])
    return _with(changed, other, second, now[one].nodes[first])


def _recap(board: _Board, now: dict[str, Placed], names: Sequence[str], random: Random) -> dict[str, Placed] | None:
    name = random.choice(names)
    return {**now, name: Placed(now[name].nodes, random.choice(board.gangs[name].points))}


def _with(now: Mapping[str, Placed], name: str, worker: int, node: str) -> dict[str, Placed]:
    nodes = list(now[name].nodes)
    nodes[worker] = node
    return {**now, name: Placed(tuple(sorted(nodes)), now[name].point)}


def _joules(point: Point) -> float:
    """Of a step."""
    return point.watts / point.throughput if point.throughput > 0 else float("inf")


__all__ = ["Gang", "Node", "Placed", "Placement", "feasible", "greedy", "place", "score"]
