"""Installs a job's requirements in a pod, beside what its image has. Runs there by itself: it imports nothing of ours.

`pip install --target` takes nothing that is there for installed, and would download torch again. So pip is first asked
what is missing, and only that is installed, where PYTHONPATH then finds it.

What may pass (the network, an index that answers 503) is tried again for a while. What cannot (no such version, another
hash, an invalid line) ends with an exit code of its own, by which the job ends, too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOPELESS = 72
"""`drivetrain_api.exit_codes.ExitCode.REQUIREMENTS`: another pod would fail in the same way."""
PATIENCE_SECONDS = 300
"""From the first failure that may pass to the last try."""
PAUSES = (2, 60)
"""Between tries, doubled from the first to the second."""
SECONDS = 1800
"""For each of both passes of pip."""
BEAT_SECONDS = 5
STALE_SECONDS = 60
"""A lock whose owner has not touched it for so long is nobody's."""
OPTIONS = re.compile(
    r"^(-i|--index-url|--extra-index-url|-f|--find-links|--no-index|--pre|--trusted-host|--no-binary|--only-binary"
    r"|--prefer-binary)\b"
)
UNFETCHED = re.compile(r"Could not fetch URL (https?://[^\s:]+\S*): (.*?)(?: for url: .*| - skipping)$", re.M)
"""Of pip's log only: without it, an index that is away looks like one that lacks the package."""
REFUSED = re.compile(r"4(?!08|25|29)\d\d ")
"""How an answer begins that another try gets, too."""
PASSING = re.compile(
    r"HTTP error (?:5\d\d|408|425|429)|too many \d+ error responses|Max retries exceeded|[Tt]imed out|Timeout"
    r"|[Cc]onnection (?:re|ab|br|was)|ConnectionError|[Nn]ame resolution|Could not resolve host|Failed to connect to"
    r"|Network is unreachable|IncompleteRead|IncompleteDownload|unexpected disconnect|early EOF"
)
NEVER = re.compile(
    r"Could not find a version that satisfies|No matching distribution found|Invalid requirement|Invalid URL"
    r"|DO NOT MATCH THE HASHES|Hashes are required|--require-hashes mode|Can't verify hashes"
    r"|requires a different Python|not a supported wheel|nvalid wheel filename|Double requirement given"
    r"|conflicting dependencies|ResolutionImpossible|because of HTTP error 4(?!08|25|29)|Cannot find command"
    r"|no such option"
)


class Unusable(Exception):
    """It cannot be installed, however often it is tried."""


class Unfinished(Exception):
    """It was not installed; another try may do better."""


def main() -> int:
    """Exit code: `HOPELESS`, or 1 for what another pod may do better."""
    parser = argparse.ArgumentParser()
    parser.add_argument("requirements", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--index-url")
    given = parser.parse_args()
    current = given.folder / "current"
    if current.exists():
        return 0
    try:
        place = provide(given.requirements, given.cache or given.folder, given.index_url)
    except Unusable as error:
        # The last line is what status has of it.
        print(f"requirements: they cannot be installed: {error}", file=sys.stderr)
        return HOPELESS
    except subprocess.TimeoutExpired:
        print(f"requirements: pip was not done after {SECONDS} s", file=sys.stderr)
        return 1
    except (Unfinished, OSError) as error:
        print(f"requirements: {error}", file=sys.stderr)
        return 1
    current.symlink_to(place)
    return 0


def provide(requirements: Path, root: Path, index_url: str | None) -> Path:
    """The folder with what is missing, installed by us or by another pod."""
    text = requirements.read_text("utf-8")
    about = f"{text}\n{index_url}\n{sys.version}\n{platform.machine()}\n{sorted(installed())}"
    place = root / hashlib.sha256(about.encode()).hexdigest()[:16]
    with locked(root / f"{place.name}.lock", place):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=root, prefix=f"{place.name}.tmp-") as made:
                install(requirements, text, Path(made), index_url)
                try:
                    (Path(made) / "packages").rename(place)
                except OSError:
                    if not place.is_dir():  # else another has installed the same
                        raise
    return place


def installed() -> set[str]:
    """What the image has: the cache is shared by jobs of other images, too."""
    import importlib.metadata

    return {f"{each.metadata['Name']}=={each.version}" for each in importlib.metadata.distributions()}


@contextlib.contextmanager
def locked(path: Path, place: Path) -> Iterator[None]:
    """One pod at a time; others wait for it, or until it is gone. What is there already needs no lock."""
    told = False
    while not place.is_dir():
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if left(path):
                print("requirements: whoever installed them is gone", flush=True)
                continue
            if not told:
                told = True
                print("requirements: another pod of the cache installs them; waiting", flush=True)
            time.sleep(1)
    else:
        yield
        return
    over = threading.Event()
    beating = threading.Thread(target=beat, args=(path, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def left(path: Path) -> bool:
    """Whether it was nobody's; then it is gone. Another may have taken it away and hold a new one since we looked: so
    what we took away is looked at again."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        if not stale(path):
            return False
        path.rename(aside)
        if not stale(aside):
            aside.rename(path)
            return False
        aside.unlink()
        return True
    return False


def stale(path: Path) -> bool:
    """Also one that is of the future: clocks of nodes differ, and may be set right."""
    return abs(time.time() - path.stat().st_mtime) > STALE_SECONDS


def beat(path: Path, over: threading.Event) -> None:
    """Tells the others that we live."""
    while not over.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def install(requirements: Path, text: str, made: Path, index_url: str | None) -> None:
    """What pip finds missing, into made/packages."""
    packages, report, missing = made / "packages", made / "report.json", made / "missing.txt"
    packages.mkdir()
    options = [] if index_url is None else ["--index-url", index_url]
    pip(made, "--dry-run", "--report", str(report), "-r", str(requirements), *options)
    wanted = [line for each in json.loads(report.read_text("utf-8"))["install"] if (line := exactly(each))]
    if not wanted:
        print("requirements: the image has them all", flush=True)
        return
    kept = [line for line in text.splitlines() if OPTIONS.match(line.strip())]
    if not all("--hash" in line for line in wanted):
        wanted = [line.partition(" --hash")[0] for line in wanted]
    missing.write_text("\n".join([*kept, *wanted, ""]), "utf-8")
    print(f"requirements: {len(wanted)} packages to install", flush=True)
    pip(made, "--target", str(packages), "--no-deps", "-r", str(missing), *options)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # for another place than this


def exactly(found: dict[str, Any]) -> str:
    """A line of a requirements file for what pip chose."""
    name, version = found["metadata"]["name"], found["metadata"]["version"]
    if found.get("is_direct"):
        info = found["download_info"]
        commit = info.get("vcs_info", {}).get("commit_id")
        return (
            f"{name} @ {info['vcs_info']['vcs'] + '+' if commit else ''}{info['url']}{'@' + commit if commit else ''}"
        )
    digest = found["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{name}=={version}" + (f" --hash=sha256:{digest}" if digest else "")


def pip(made: Path, *arguments: str) -> None:
    """Raises `Unusable`, `Unfinished`. Temporary files lie in `made`: a root file system may be read-only."""
    common = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--root-user-action", "ignore"]
    environment = {**os.environ, "TMPDIR": str(made), "PYTHONPATH": ""}
    environment.setdefault("HOME", str(made))
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        raise Unusable("this image has no pip; put the packages into --image")
    logged = made / "log"
    command = [sys.executable, "-m", "pip", "install", *arguments, *common, "--log", str(logged)]
    began, pause = time.monotonic(), PAUSES[0]
    while True:
        logged.unlink(missing_ok=True)
        with (made / "errors").open("w+", encoding="utf-8", errors="replace") as errors:
            done = subprocess.run(command, check=False, timeout=SECONDS, env=environment, stderr=errors)
            errors.seek(0)
            said = errors.read()
        print(said, file=sys.stderr, end="", flush=True)
        if not done.returncode:
            return
        passing = what_may_pass(said, logged.read_text("utf-8", "replace") if logged.exists() else "")
        if passing is None:
            raise Unfinished(f"pip ended with {done.returncode}: {last_error(said)}")
        if time.monotonic() + pause - began > PATIENCE_SECONDS:
            raise Unfinished(f"given up after {time.monotonic() - began:.0f} s: {passing}")
        print(f"requirements: {passing}; trying again in {pause} s", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(PAUSES[1], 2 * pause)


def what_may_pass(said: str, log: str) -> str | None:
    """What stood in the way, for a person; None if nobody knows whether another try would do better. Raises `Unusable`.

    `said`: pip's stderr; `log`: what it wrote by `--log`.
    """
    unfetched = [(url, why) for url, why in UNFETCHED.findall(log)]
    away = [f"{url}: {why}" for url, why in unfetched if not REFUSED.match(why)]
    errors = [line.strip() for line in said.splitlines() if not line.startswith("WARNING:")]
    away += [line for line in errors if PASSING.search(line)]
    if away:
        return f"what pip asked did not answer as it should: {shortened(away[0])}"
    for number, line in enumerate(errors):
        if not NEVER.search(line):
            continue
        line = line.removeprefix("ERROR: ")
        if line.startswith("THESE PACKAGES") or line.endswith("These do not:"):  # each in a line of its own
            which = "".join(errors[number + 1 : number + 2]).partition(" from ")[0]
            line = f"{which}: {line.partition('. ')[0].capitalize()}"
        refused = [f"{url} answered {why}" for url, why in unfetched if not why.startswith("404")]
        raise Unusable("; ".join([shortened(line), *refused[:1]]))
    return None


def shortened(line: str) -> str:
    """Of the versions that there are the newest; of what is long all the same, its beginning."""
    line = re.sub(r"\(from versions: (?:[^,)]+, )+((?:[^,)]+, ){4}[^,)]+)\)", r"(from versions: …, \1)", line)
    return line if len(line) <= 500 else f"{line[:500]}…"


def last_error(said: str) -> str:
    """The line in which pip says why it ended."""
    words = [line for line in said.splitlines() if line.startswith("ERROR:")]
    return shortened((words or ["no word of it"])[-1])


if __name__ == "__main__":
    sys.exit(main())
