"""PURE: which nodes should the new workers of one job run on, and which should they keep off?

Everything is handed in as it is at one moment, so that it can be asked in a thread; the same question has the same
answer. Of other people's pods nothing is known: the scheduler, who knows them, has the last word.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_api.figures import plain
from drivetrain_api.node_match import selects, untolerated
from drivetrain_api.power import NodeReport
from drivetrain_energy.job.curve import Point
from drivetrain_energy.power.placement import HEADROOM_C, Gang, Node, place
from drivetrain_energy.settings import Placement
from drivetrain_operator.energy.hot import hottest
from drivetrain_operator.energy.nodes import NodeView
from drivetrain_operator.plan.effects import Preference

MAX_NODES: Final = 64
"""Among so many, the best of all, places are sought."""
MAX_PARTS: Final = 64
"""Of a job; larger ones are placed by several workers at once."""
MAX_AVOIDED: Final = 16
"""Named in one pod."""
MOVES: Final = 300
MAX_SAID: Final = 1000
"""Values and tolerations that a pod says of nodes: each of them is looked at for each node, while others wait."""
LEAST_COST: Final = 0.01
"""Of the highest: what costs nothing, or brings money, is not infinitely better."""
SHOWN: Final = 3
"""Names in a sentence."""


@dataclass(frozen=True, slots=True)
class Site:
    """A power domain, as the work of one job has it."""

    name: str
    zone: str
    labels: Mapping[str, str]
    cost: float | None = None
    """Of a kilowatt-hour over the job's hours, with PUE: grams, or money. None: nobody knows."""
    unit: str = ""
    pue: float = 1.0
    max_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """The cluster at one moment."""

    nodes: Sequence[NodeView]
    used: Mapping[str, Mapping[str, float]]
    """By node and resource: by our own pods."""
    reports: Mapping[str, NodeReport]
    settings: Placement
    hot: frozenset[str] = frozenset()
    """Nodes that are too hot, or were until a moment ago."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed."""

    uid: str
    """Of the job: what is drawn by lot is drawn by it."""
    pod: Mapping[str, Any]
    """`spec` of one of its workers."""
    asks: tuple[tuple[str, float], ...]
    """What one takes of a node, by resource."""
    workers: int
    gpu: str = ""
    """Resource of its GPUs; empty: it has none."""
    zone: str | None = None
    """It wants to be there, and nowhere else; a zone of no site is no wish."""
    beside: tuple[str, ...] = ()
    """A node for each worker that it has."""
    sites: tuple[Site, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """For each worker, in their order."""

    prefers: tuple[Preference, ...] = ()
    """Empty: nothing is better than anything else."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    view: NodeView
    site: Site | None
    node: Node
    bad: str = ""
    """Why it is kept off."""


def choose(ground: Ground, wish: Wish) -> Choice:
    """Where they had better be."""
    if _says(wish.pod) > MAX_SAID:
        return Choice()
    places = {place.view.name: place for place in _places(ground, wish)}
    avoid = tuple(name for name, each in sorted(places.items()) if each.bad)[:MAX_AVOIDED]
    weight = ground.settings.weight
    nodes = _placed(wish, places)
    if nodes:
        sites = [places[name].site for name in nodes]
        labels = [_labels(site) for site in sites]
        prefers = [Preference(name, each, avoid, weight) for name, each in zip(nodes, labels, strict=True)]
        return Choice(tuple(prefers), _said(nodes, sites, places, avoid))
    site = min((each.site for each in places.values() if each.site is not None), key=_cheapest, default=None)
    best = site if site is not None and site.cost is not None else None
    if best is None and not avoid:
        return Choice()
    return Choice((Preference("", _labels(best), avoid, weight),) * wish.workers, _said((), [best], places, avoid))


def _says(pod: Mapping[str, Any]) -> int:
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    about = [e for term in terms for key in ("matchExpressions", "matchFields") for e in term.get(key) or ()]
    values = sum(1 + len(each.get("values") or ()) for each in about)
    return values + len(terms) + len(pod.get("nodeSelector") or ()) + len(pod.get("tolerations") or ())


def _places(ground: Ground, wish: Wish) -> list[_Place]:
    """Nodes on which the pod may run, with or without room."""
    needs = {name: amount for name, amount in wish.asks if amount > 0}
    costs = [site.cost for site in wish.sites if site.cost is not None]
    highest, mean = max(costs, default=1.0), sum(costs) / len(costs) if costs else 1.0
    zone = wish.zone if any(site.zone == wish.zone for site in wish.sites) else None
    found = []
    for view in ground.nodes:
        if not view.open or untolerated(wish.pod, view.taints) is not None:
            continue
        if not selects(wish.pod, view.name, view.labels):
            continue
        site = next((each for each in wish.sites if each.labels.items() <= view.labels.items()), None)
        if zone is not None and (site is None or site.zone != zone):
            continue
        cost = site.cost if site is not None and site.cost is not None else mean
        energy = next(
            (e.energy for e in ground.settings.efficiency if e.node_selector.items() <= view.labels.items()), 1.0
        )
        headroom, throttled, bad = _heat(ground, view, site)
        node = Node(
            name=view.name,
            devices=_room(view, ground.used.get(view.name, {}), needs, wish.gpu),
            intensity=max(cost, LEAST_COST * highest, 1e-9),
            energy=energy,
            rack=view.labels.get(ground.settings.topology_key, ""),
            headroom=headroom,
            throttled=throttled,
        )
        found.append(_Place(view, site, node, bad))
    return found


def _heat(ground: Ground, view: NodeView, site: Site | None) -> tuple[float, bool, str]:
    """Degrees below its limit, whether it is slowed, and what is said of it."""
    report = ground.reports.get(view.name)
    limit = ground.settings.max_temperature_c or (site.max_celsius if site is not None else None)
    if report is None:
        return HEADROOM_C, False, ""
    celsius = hottest(report)
    throttled = any(device.slowed for device in report.devices)
    if celsius is not None and limit is not None and celsius >= limit:
        return 0.0, throttled, f"{celsius:.0f} °C"
    if view.name in ground.hot:
        return 0.0, throttled, "cools down"
    headroom = limit - celsius if limit is not None and celsius is not None else HEADROOM_C
    return headroom, throttled, "its cards are slowed" if throttled else ""


def _room(view: NodeView, used: Mapping[str, float], needs: Mapping[str, float], gpu: str) -> int:
    """GPUs that workers of this kind can have there, or such workers."""
    free = {name: view.allocatable.get(name, 0.0) - used.get(name, 0.0) for name in needs}
    workers = int(max(0.0, min(free[name] // need for name, need in needs.items())))
    each = int(needs.get(gpu, 0))
    if not each:
        return workers
    of_gpus = int(free[gpu])
    return of_gpus if of_gpus // each <= workers else workers * each


def _placed(wish: Wish, places: Mapping[str, _Place]) -> tuple[str, ...]:
    """A node for each worker; none if not all of them fit."""
    each = int(dict(wish.asks).get(wish.gpu, 0)) or 1
    together = -(-wish.workers // MAX_PARTS)
    parts = -(-wish.workers // together)
    near = [name for name in dict.fromkeys(wish.beside) if name in places][:MAX_NODES]
    nodes = _best(places, parts, each * together, {places[name].node.rack for name in near})
    known = {node.name: node for node in [*(places[name].node for name in near), *nodes]}
    gang = Gang("", parts, each * together, (Point(1, 1.0, 1.0),), beside=tuple(near))
    found = place(list(known.values()), [gang], None, zlib.crc32(wish.uid.encode()), MOVES).get("")
    if found is None:
        return ()
    return tuple(node for node in found.nodes for _ in range(together))[: wish.workers]


def _best(places: Mapping[str, _Place], parts: int, devices: int, near: set[str]) -> list[Node]:
    """Those with room for one at least, the best first; of places alike those that have room for all."""
    room: dict[str, int] = {}
    fit = [each.node for each in places.values() if each.node.devices >= devices and each.node.headroom > 0]
    for node in fit:
        room[node.rack] = room.get(node.rack, 0) + node.devices // devices

    def order(node: Node) -> tuple[float, bool, bool, bool, str, str]:
        cost = node.intensity * node.energy
        return cost, node.throttled, node.rack not in near, room[node.rack] < parts, node.rack, node.name

    return sorted(fit, key=order)[:MAX_NODES]


def _labels(site: Site | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(site.labels.items())) if site is not None else ()


def _cheapest(site: Site) -> tuple[float, str]:
    return (site.cost if site.cost is not None else float("inf")), site.name


def _said(
    nodes: Sequence[str], sites: Sequence[Site | None], places: Mapping[str, _Place], avoid: Sequence[str]
) -> str:
    parts = []
    own = list({site.name: site for site in sites if site is not None}.values())
    where = _few([_site(site) for site in own])
    if nodes:
        parts.append(f"prefer {_few(sorted(set(nodes)))}{f' in {where}' if where else ''}")
    elif where:
        parts.append(f"prefer {where}, where not all of them have room now")
    others = [
        each.site.cost
        for each in places.values()
        if each.site is not None and each.site not in own and each.site.cost is not None
    ]
    if where and others:
        low, high = min(others), max(others)
        parts.append(f"elsewhere {plain(low, 3)}" + (f" to {plain(high, 3)}" if high > low else ""))
    if avoid:
        parts.append(f"keep off {_few([f'{name} ({places[name].bad})' for name in avoid])}")
    return "; ".join(parts)


def _site(site: Site) -> str:
    return f"{site.name} ({site.zone}" + (f", {plain(site.cost, 3)} {site.unit})" if site.cost is not None else ")")


def _few(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


__all__ = ["Choice", "Ground", "Site", "Wish", "choose"]
