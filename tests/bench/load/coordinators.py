"""Coordinators that are small: `python -m bench.load.coordinators FILE`, until its input ends.

FILE has one JSON line for each job: uid, name, term, token, pod. Each keeps one report open, as a real one does. The
first job of the file asks in between for an answer that is not held, ten times a second: how long that takes is how
long a report takes. Each line on the output is a count.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.load.probe import percentile
from drivetrain_api.report import JobState, MemberReport, Report

REVISION: Final = re.compile(r'"revision":(\d+)')
PERIOD: Final = 1.0
PROBE_GAP: Final = 0.15
"""Seconds; less would be more often than one token may ask."""
RAMP_SECONDS: Final = 20.0


class Crew:
    """All of one file."""

    def __init__(self, port: int, jobs: list[dict[str, Any]]) -> None:
        self._url = f"https://127.0.0.1:{port}/v1/report"
        self._jobs = jobs
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._seen = dict.fromkeys((job["uid"] for job in jobs), -1)
        self._seq = dict.fromkeys(self._seen, 0)
        self.answered = 0
        self.refused: dict[str, int] = {}
        self.heard: set[str] = set()
        self.took: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        # A session each, as a connection speaks for one job.
        async with AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=10)
            sessions = [await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout)) for _ in self._jobs]
            async with asyncio.TaskGroup() as group:
                for number, (session, job) in enumerate(zip(sessions, self._jobs, strict=True)):
                    group.create_task(self._keeps(session, job, RAMP_SECONDS * number / len(self._jobs)))
                group.create_task(self._probes(sessions[0], self._jobs[0]))
                group.create_task(self._counts())

    async def _keeps(self, session: aiohttp.ClientSession, job: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            began = time.monotonic()
            await self._post(session, job, self._seen[job["uid"]])
            await asyncio.sleep(max(0.01, PERIOD - (time.monotonic() - began)))

    async def _probes(self, session: aiohttp.ClientSession, job: dict[str, Any]) -> None:
        while True:
            began = time.monotonic()
            if await self._post(session, job, -1):
                self.took.append(time.monotonic() - began)
            await asyncio.sleep(PROBE_GAP)

    async def _post(self, session: aiohttp.ClientSession, job: dict[str, Any], seen: int) -> bool:
        uid = job["uid"]
        self._seq[uid] += 1
        process = f"{job['pod']}/b/1"
        member = MemberReport(rank=0, process=process, pod_uid=job["pod"], pid=7, start_ticks=9, step=5)
        report = Report(
            job_uid=uid,
            namespace="bench-ours",
            job=job["name"],
            term=job["term"],
            seq=self._seq[uid],
            roster_seen=seen,
            state=JobState.TRAINING,
            epoch=(job["term"], 1),
            world=1,
            members=[member],
            joined=[job["pod"]],
            ready=[job["pod"]],
        )
        headers = {"Authorization": f"Bearer {job['token']}"}
        try:
            async with session.post(self._url, data=report.model_dump_json(), headers=headers, ssl=self._tls) as answer:
                text = await answer.text()
                if answer.status == 200:
                    self.answered += 1
                    self.heard.add(uid)
                    found = REVISION.search(text)
                    if (found is not None and seen >= 0) or self._seen[uid] < 0:
                        self._seen[uid] = int(found[1]) if found is not None else -1
                    return True
                why = f"{answer.status} {text[:60]}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = type(error).__name__
        self.refused[why] = self.refused.get(why, 0) + 1
        await asyncio.sleep(0.3)
        return False

    async def _counts(self) -> None:
        while True:
            told = {
                "answered": self.answered,
                "heard": len(self.heard),
                "refused": self.refused,
                "p50": percentile(self.took[-200:], 0.5) if self.took else None,
                "p99": percentile(self.took[-200:], 0.99) if self.took else None,
                "n": len(self.took),
            }
            print(json.dumps(told), flush=True)
            await asyncio.sleep(0.5)


async def main(port: int, path: Path) -> None:
    """Until the input ends."""
    jobs = [json.loads(line) for line in path.read_text().splitlines()]
    running = asyncio.create_task(Crew(port, jobs).run())
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
