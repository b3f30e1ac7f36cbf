"""`make bench-training`: every mode beside plain torch, then sums over slow links. Takes about 17 minutes."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.training import collectives, footprint, pairs
from bench.training.estimate import Estimate, estimate, ratios
from bench.training.footprint import Footprint
from bench.training.links import RATES, CannotLink, quiet
from bench.training.methods import METHODS, STEPPED
from bench.training.modes import Mode, chosen

WORLDS = (2, 4)
INT8_AT = 16
"""MB: the size at which int8 is held to its target."""

HEAD = (
    f"{'ranks':>5} {'mode':<13}{'ours ms':>8}{'torch ms':>9}{'ratio':>7} {'95 % interval':<14}{'p95':>6}{'pairs':>6}"
    f"{'sent MB':>13}{'peak MB':>12}{'final loss':>17}  torch's"
)


def _two(ours: float, theirs: float | None, digits: int) -> str:
    """Ours and torch's side by side."""
    return f"{ours:.{digits}f}/" + ("–" if theirs is None else f"{theirs:.{digits}f}")


def _doing(what: str) -> None:
    """Tell who watches; the next line of the table takes its place."""
    if sys.stderr.isatty():
        print(f"\r{what} …\033[K", end="\r", file=sys.stderr, flush=True)


def row(mode: Mode, world: int, times: pairs.Pairs, ours: Footprint, theirs: Footprint | None) -> Estimate | None:
    """Print what was found; returns the ratio, if there is one."""
    ratio = ratios(times.ours, times.theirs) if times.theirs else None
    their_ms = f"{1e3 * estimate(times.theirs).median:.1f}" if times.theirs else "–"
    compared = (
        f"{ratio.median:>7.3f} {f'{ratio.low:.3f}–{ratio.high:.3f}':<14}{ratio.p95:>6.2f}" if ratio else f"{'':>28}"
    )
    threads = f", {times.threads} threads" if times.threads > 1 else ""
    counterpart = f"{mode.torch.name} ({times.setting}{threads})" if mode.torch else "none"
    print(
        f"{world:>5} {mode.name:<13}{1e3 * estimate(times.ours).median:>8.1f}{their_ms:>9}{compared}"
        f"{len(times.ours):>6}{_two(ours.sent_mb, theirs.sent_mb if theirs else None, 1):>13}"
        f"{_two(ours.peak_mb, theirs.peak_mb if theirs else None, 0):>12}"
        f"{_two(times.our_loss, times.their_loss if mode.torch else None, 5):>17}  {counterpart}",
        flush=True,
    )
    return ratio


@contextmanager
def _quiet_if_possible() -> Iterator[str | None]:
    with ExitStack() as stack:
        name = None
        try:
            name = stack.enter_context(quiet())
        except CannotLink as error:
            print(f"no network namespaces ({error}): 'sent MB' counts all that this machine's loopback carries")
        yield name


def modes_beside_torch(arguments: argparse.Namespace) -> dict[tuple[str, int], float]:
    """The first table; ratios ours to torch by mode and world."""
    print(
        "Steps of ours and of plain torch in turn, on loopback; ratio is the median over pairs. Sent: bytes a rank and"
    )
    print(
        "step, with headers. Peak: above what the process had before, the rank that needs most. Loss: mean of the last"
    )
    print(
        f"{pairs.LOSS_OVER} of {arguments.steps} steps on the same data from the same parameters. Pairs: ours/torch.\n"
    )
    print(HEAD, flush=True)
    found = {}
    with _quiet_if_possible() as namespace:
        for world in arguments.ranks:
            for mode in chosen(arguments.only):
                _doing(f"{mode.name} with {world} ranks")
                times = pairs.measure(mode, world, arguments.steps - pairs.WARM_UP, arguments.per_rank)
                ours = footprint.measure(mode, world, None, namespace, arguments.per_rank)
                theirs = None
                if mode.torch is not None:
                    theirs = footprint.measure(mode, world, times.setting, namespace, arguments.per_rank)
                ratio = row(mode, world, times, ours, theirs)
                if ratio is not None:
                    found[mode.name, world] = ratio.median
    return found


def sums_on_links(arguments: argparse.Namespace) -> dict[str, float]:
    """The second table; how many times faster int8 is than fp32 in the worst world, by rate."""
    print(
        "\nSum over the ranks on slow links, ms: fp32 and how many times faster the others are. Link: what of its rate"
    )
    print("the ring of fp32 reached, which shows that it is the link that binds. Step: a training step, ms.\n")
    print(
        f"{'ranks':>5} {'link':<9}{'MB':>4}{'fp32 ms':>9}{'link':>7}", *(f"{name:>7}" for name in METHODS), flush=True
    )
    faster: dict[str, float] = {}
    for world in arguments.ranks:
        for rate in RATES:
            _doing(f"{world} ranks at {rate.name}")
            try:
                sums, steps = collectives.measure(world, rate, arguments.per_rank)
            except CannotLink as error:
                print(f"no slow links on this machine: {error}")
                return faster
            for megabytes in rate.repetitions:
                base = sums["fp32", megabytes]
                reached = 2 * (world - 1) / world * (megabytes << 23) / base / rate.bits
                gains = {name: base / sums[name, megabytes] for name in METHODS}
                print(
                    f"{world:>5} {rate.name:<9}{megabytes:>4}{1e3 * base:>9.0f}{reached:>7.0%}",
                    *(f"{gain:>6.2f}x" for gain in gains.values()),
                    flush=True,
                )
                if megabytes == INT8_AT and "int8" in gains:
                    faster[rate.name] = min(faster.get(rate.name, math.inf), gains["int8"])
            print(
                f"{world:>5} {rate.name:<9}step", *(f"{name} {1e3 * steps[name]:.0f}" for name in STEPPED), flush=True
            )
    return faster


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-training", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="of each side, the first of them to warm up")
    parser.add_argument("--only", metavar="MODE,…", help="modes; none: all")
    parser.add_argument("--ranks", type=lambda text: [int(each) for each in text.split(",")], default=list(WORLDS))
    parser.add_argument("--per-rank", type=int, default=2, help="samples a step")
    parser.add_argument("--skip", choices=("modes", "links"), help="one of the two tables")
    arguments = parser.parse_args()
    if arguments.steps < pairs.WARM_UP + pairs.LOSS_OVER:
        parser.error(f"--steps: at least {pairs.WARM_UP + pairs.LOSS_OVER}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends contexts, so that no network namespace stays behind
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns that addresses have no host names
    found = {} if arguments.skip == "modes" else modes_beside_torch(arguments)
    int8 = {} if arguments.skip == "links" else sums_on_links(arguments)
    worst = max(found, key=lambda key: found[key], default=None)
    if worst is not None:
        print(f"\nworst beside torch: {worst[0]} with {worst[1]} ranks")
    zero3 = found.get(("zero3", 4), math.nan)
    print(
        f"worst_vs_torch={found[worst] if worst else math.nan:.3f} zero3_vs_fsdp2={1 / zero3:.2f} "
        f"int8_1gbit={int8.get('1gbit', math.nan):.2f} int8_100mbit={int8.get('100mbit', math.nan):.2f}"
    )


if __name__ == "__main__":
    main()
