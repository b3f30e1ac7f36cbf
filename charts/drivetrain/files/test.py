"""What `helm test` asks: python test.py METRICS-SERVICE REPORTS-SERVICE. Ends with 1, and says what does not answer."""

import socket
import sys
import time
import urllib.request

SECONDS = 60
METRICS, REPORTS = sys.argv[1:3]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ready() -> str:
    """Of the replica that the Service chose."""
    return direct.open(f"http://{METRICS}:7071/readyz", timeout=5).read().decode().strip()


def numbers() -> str:
    """It counts."""
    text = direct.open(f"http://{METRICS}:7071/metrics", timeout=5).read().decode()
    return f"{text.count('# TYPE drivetrain_')} metrics"


def leader() -> str:
    """The Service of reports leads to the leader only."""
    socket.create_connection((REPORTS, 7443), timeout=5).close()
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
