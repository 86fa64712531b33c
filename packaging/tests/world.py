"""What the tests of packages share: a world of their own, and the programs around the server in it.

`tests/run.py` enters it: namespaces for mounts, network and processes. So ports are free, servers can be reached from
within only, and neither a mount nor a process stays.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOADGEN = os.environ.get("LOADGEN", str(REPOSITORY / "target/release/loadgen"))
READY_WITHIN_S = 20
DONE = []
STARTED = []


def check(holds, what):
    """Counts a check. A failed one ends the test, with what did not hold."""
    if not holds:
        raise AssertionError(what)
    DONE.append(what)


def run(*command, status=0, **options):
    """Runs a command and returns what it printed. Another exit status than expected is an error that shows it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


def until(condition, what, seconds=READY_WITHIN_S):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


def get(url):
    """The status and body of a page, or None if the server cannot be reached."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


class Process:
    """A program in the background with its output in a file."""

    def __init__(self, command, log, **options):
        self.log = Path(log)
        with open(log, "wb") as file:
            self.child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        STARTED.append(self)

    def output(self):
        return self.log.read_text(errors="replace")

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, seconds=30):
        return self.child.wait(seconds)

    def end(self):
        """Ends it at once: a second signal does not wait for requests."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is not None:
                return
            self.child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(1)
        self.child.wait(5)


class Notified:
    """The socket on which systemd would hear from a service."""

    def __init__(self, path):
        self.messages = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        os.chmod(path, 0o777)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            self.messages += self.socket.recv(4096).decode().split("\n")

    def heard(self, message):
        return message in self.messages


class Unit:
    """An installed unit file, read as far as it is needed to start the service by hand."""

    def __init__(self, path):
        lines = path.read_text().splitlines()
        pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
        self.settings = {}
        for key, value in pairs:
            self.settings.setdefault(key.strip(), []).append(value.strip())

    def one(self, key):
        return self.settings[key][-1]

    def environment(self, root):
        """What Environment= and EnvironmentFile= set; later ones win."""
        variables = dict(value.split("=", 1) for value in self.settings.get("Environment", []))
        for name in self.settings.get("EnvironmentFile", []):
            file = root / name.lstrip("-/")
            if not file.exists() and name.startswith("-"):
                continue
            for line in file.read_text().splitlines():
                if match := re.match(r"([A-Z_0-9]+)=(.*)", line):
                    variables[match[1]] = match[2].strip("\"'")
        return variables

    def command(self, variables):
        return [re.sub(r"\$\{(\w+)\}", lambda m: variables[m[1]], word) for word in self.one("ExecStart").split()]


def sink(port, log, *options):
    """Starts an upstream that keeps account of what it stores."""
    process = Process([LOADGEN, "sink", "--listen", f"127.0.0.1:{port}", "--account", "--every", "0s", *options], log)
    until(lambda: get(f"http://127.0.0.1:{port}/stats"), "the sink answers")
    return process


def pushes_arrive(port, upstream, *options, label="tenant"):
    """Pushes stamped samples; each that was acknowledged must be stored, once and under its tenant."""
    return run(
        LOADGEN,
        "verify",
        "--url",
        f"http://127.0.0.1:{port}/push",
        "--sink",
        f"http://127.0.0.1:{upstream}/account",
        "--tenant-label",
        label,
        "--settle",
        "300ms",
        *options,
    )
