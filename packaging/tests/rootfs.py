"""A root in which packages are installed and run."""

import os
import shutil
import signal
import socket
from pathlib import Path

from world import Notified, Process, Unit, check, get, run, until

# The number of the descriptor that a service inherits; a shell can only name those with one digit.
HANDED_OVER = 9


class Root:
    """A Debian system without systemd running: this machine's, with what is written kept apart in memory, or a minimal
    one, if CLEAN_ROOT names its tarball."""

    def __init__(self, work, name):
        base = work / name
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", base)
        self.path, self.logs = base / "root", base / "logs"
        for directory in (self.path, self.logs, base / "upper", base / "overlay"):
            directory.mkdir()
        if clean := os.environ.get("CLEAN_ROOT"):
            run("tar", "--extract", "--numeric-owner", "--exclude=./dev/*", "--file", clean, "--directory", self.path)
        else:
            layers = f"lowerdir=/,upperdir={base / 'upper'},workdir={base / 'overlay'}"
            run("mount", "-t", "overlay", "-o", layers, "overlay", self.path)
            # Units of this machine are none of the test's business, and nothing of it runs here.
            shutil.rmtree(self.path / "run")
            (self.path / "run/lock").mkdir(parents=True)
            # The index of manual pages is made anew after each installation, which takes most of its time.
            (self.path / "var/lib/man-db/auto-update").unlink(missing_ok=True)
        run("mount", "-t", "proc", "proc", self.path / "proc")
        run("mount", "--rbind", "/dev", self.path / "dev")
        self.has("/run/systemd").mkdir(exist_ok=True)

    def has(self, path):
        return self.path / str(path).lstrip("/")

    def run(self, *command, **options):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        return run("chroot", self.path, *command, env=environment, **options)

    def install(self, *packages, status=0):
        for package in packages:
            shutil.copy(package, self.path)
        # What is written is in memory.
        return self.run(
            "dpkg", "--force-unsafe-io", "--install", *(f"/{Path(package).name}" for package in packages), status=status
        )

    def installed_version(self, package):
        return self.run("dpkg-query", "-W", "-f=${Status} ${Version}", package, status=None)

    def edit(self, path, *replacements):
        """Changes a file as an administrator would; each text to replace must be there."""
        file = self.has(path)
        text = file.read_text()
        for old, new in replacements:
            check(old in text, f"{path} has {old!r}")
            text = text.replace(old, new)
        file.write_text(text)


class Service:
    """A service of the root, started by hand from its unit as systemd would."""

    def __init__(self, root, name):
        self.root, self.name = root, name
        self.unit = Unit(root.has(f"/usr/lib/systemd/system/{name}.service"))
        self.user = self.unit.one("User")
        self.number = 0
        self.start_with = []

    def listen_as(self, unit):
        """Holds the port of a socket unit, and hands it to the service at each start, as systemd does."""
        host, port = unit.one("ListenStream").split(":")
        self.socket = socket.create_server((host, int(port)), backlog=int(unit.one("Backlog")))
        os.dup2(self.socket.fileno(), HANDED_OVER)
        handing = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&{HANDED_OVER} {HANDED_OVER}<&-; exec "$@"'
        self.start_with = ["sh", "-c", handing, "sh"]

    def listen_itself(self):
        """Closes the port of the socket unit."""
        self.socket.close()
        os.close(HANDED_OVER)
        self.start_with = []

    def launch(self):
        """Starts the program as the unit's user, with its environment and nothing else."""
        self.number += 1
        self.notified = Notified(self.root.has(f"/run/systemd/notify-{self.name}"))
        variables = self.unit.environment(self.root.path)
        command = self.unit.command(variables)
        self.process = Process(
            [
                *self.start_with,
                "chroot",
                self.root.path,
                "setpriv",
                "--reuid",
                self.user,
                "--regid",
                self.user,
                "--init-groups",
                "--bounding-set=-all",
                "--inh-caps=-all",
                "--no-new-privs",
                *command,
            ],
            self.root.logs / f"{self.name}-{self.number}",
            pass_fds=[HANDED_OVER] if self.start_with else [],
            env={"PATH": "/usr/sbin:/usr/bin", "NOTIFY_SOCKET": f"/run/systemd/notify-{self.name}", **variables},
        )

    def start(self):
        self.launch()
        until(self.is_ready, f"{self.name} is ready; it said: {self.process.output()}")

    def is_ready(self):
        if self.process.child.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.child.returncode}: {self.process.output()}")
        return self.notified.heard("READY=1")

    def reload(self, metrics):
        def reloads():
            page = get(f"http://127.0.0.1:{metrics}/metrics")[1]
            return [
                line for line in page.splitlines() if line.startswith('tenantry_config_reloads_total{result="done"}')
            ]

        before = reloads()
        self.process.signal(signal.SIGHUP)
        until(lambda: reloads() != before, "the configuration has been read again")

    def stop(self):
        """Stops it as systemd would, and expects an orderly end."""
        self.process.signal(signal.SIGTERM)
        check(self.process.wait() == 0, f"{self.name} ends with 0 after SIGTERM: {self.process.output()}")

    def restart(self):
        self.stop()
        self.start()
