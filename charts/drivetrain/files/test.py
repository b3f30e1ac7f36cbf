"""What `helm test` asks: test.py METRICS-URL REPORTS-HOST:PORT [SECONDS]. Ends with 1 and says what does not answer."""

import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

METRICS, REPORTS = sys.argv[1:3]
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 60.0
# Who is asked is not in question here: a kubelet does not verify either.
anybody = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), anybody)


def ready() -> str:
    """Of the replica that the Service chose."""
    return direct.open(f"{METRICS}/readyz", timeout=5).read().decode().strip()


def numbers() -> str:
    """It counts, and tells whom it should."""
    try:
        text = direct.open(f"{METRICS}/metrics", timeout=5).read().decode()
    except urllib.error.HTTPError as refused:
        if refused.code != 401:
            raise
        return "asks for a token"
    return f"{text.count('# TYPE drivetrain_')} metrics"


def leader() -> str:
    """The Service of reports leads to the leader only."""
    host, _, port = REPORTS.rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()
    return "listens"


def asked(name: str, question) -> bool:
    """Ask until it is answered, or the time is over."""
    ends = time.monotonic() + SECONDS
    while True:
        try:
            print(f"{name}: {question()}", flush=True)
            return True
        except OSError as error:
            if time.monotonic() > ends:
                print(f"{name}: {error}; kubectl logs deployment/drivetrain-operator says more", flush=True)
                return False
            time.sleep(1)


sys.exit(0 if all([asked("ready", ready), asked("numbers", numbers), asked("leader", leader)]) else 1)
