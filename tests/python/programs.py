"""What all tests in Python share that run the real programs. The scripts in .ci have this folder on Python's path."""

import os
import socket
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("TENANTRY_BINARIES", ROOT / "target/release"))
TENANTRY = BINARIES / "tenantry"
LOADGEN = BINARIES / "loadgen"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def until(what, seconds=20):
    """Waits until `what` gives something, and gives that."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"{what} gave nothing for {seconds} s"
        time.sleep(0.05)
    return found


def stop(process):
    if process.poll() is None:
        process.kill()
    process.wait(timeout=10)
