"""The .deb packages: installation, service, upgrade, errors, removal, purge."""

import contextlib
import shutil
import time
from pathlib import Path

from rootfs import Root, Service
from world import LOADGEN, Process, Unit, check, pushes_arrive, run, sink

CONFIG = "/etc/tenantry/tenantry.yml"
PLACEHOLDER = "target: http://127.0.0.1:9/"
PUSH, METRICS, UPSTREAM = 8081, 9091, 9009
UPGRADE_AFTER_S = 1
LOAD = ("--senders", "4", "--series", "5", "--tenants", "20")


class Debian:
    """The tests in order: each goes on where the one before ended."""

    def __init__(self, out, newer, work):
        self.packages = {name: self.find(out, name) for name in ("tenantry", "tenantry-cortex-tenant")}
        self.newer = {name: self.find(newer, name) for name in self.packages}
        self.version = self.packages["tenantry"].name.split("_")[1]
        self.newer_version = self.newer["tenantry"].name.split("_")[1]
        self.work = work

    @staticmethod
    def find(directory, name):
        (package,) = directory.glob(f"{name}_*.deb")
        return package

    def installation(self):
        self.root = root = Root(self.work, "debian")
        begun = time.monotonic()
        said = root.install(self.packages["tenantry"])
        self.install_s = time.monotonic() - begun
        check(f"ok installed {self.version}" in root.installed_version("tenantry"), f"it is installed: {said}")
        check("ERRORS" not in said, f"the configuration that it brings is sound: {said}")
        check(root.run("getent", "passwd", "tenantry"), "the service's user is there")
        check(root.run("getent", "passwd", "tenantry").strip().endswith("nologin"), "nobody can log in with it")
        links = root.has("/etc/systemd/system")
        check((links / "multi-user.target.wants/tenantry.service").is_symlink(), "the service is enabled")
        check(not (links / "sockets.target.wants/tenantry.socket").exists(), "the socket is not enabled")
        conffiles = root.run("dpkg-query", "-W", "-f=${Conffiles}", "tenantry")
        check(CONFIG in conffiles and "/etc/default/tenantry" in conffiles, f"conffiles: {conffiles}")
        check(root.run("dpkg", "--verify", "tenantry") == "", "the files are as they were packed")
        mode = root.run("stat", "-c", "%a %U %G", CONFIG).strip()
        check(mode == "640 root tenantry", f"others cannot read the configuration: {mode}")
        for page in ("man1/tenantry.1.gz", "man5/tenantry.yml.5.gz"):
            check(root.has(f"/usr/share/man/{page}").stat().st_size > 0, f"{page} is there")
        check(root.has("/usr/share/doc/tenantry/THIRD-PARTY-LICENSES.gz").exists(), "the licences of crates are there")
        self.user_without_sysusers()

    def user_without_sysusers(self):
        """systemd-sysusers is not on each machine."""
        root, tool = self.root, self.root.has("/usr/bin/systemd-sysusers")
        root.run("userdel", "tenantry")
        if tool.exists():
            tool.rename(tool.with_suffix(".away"))
        root.run("/var/lib/dpkg/info/tenantry.postinst", "configure")
        check("nologin" in root.run("getent", "passwd", "tenantry"), "adduser makes the user as well")
        if tool.with_suffix(".away").exists():
            tool.with_suffix(".away").rename(tool)

    def unset_target(self):
        """Beside cortex-tenant, tenantry.service would take or share its port, if it is not set up."""
        root = self.root
        enabled = root.has("/etc/systemd/system/multi-user.target.wants/tenantry.service")
        package = self.packages["tenantry-cortex-tenant"]
        with self.systemd_listening() as calls:
            root.edit("/etc/default/tenantry", ("#CT_CORES=0", "#CT_CORES=0\nCT_TARGET=127.0.0.1:9009"))
            root.install(package)
            check(enabled.is_symlink() and "stop" not in calls(), f"with a target it stays: {calls()}")
            root.run("dpkg", "--purge", "tenantry-cortex-tenant")
            root.edit("/etc/default/tenantry", ("\nCT_TARGET=127.0.0.1:9009", ""))
            root.install(package)
            check("stop tenantry.service" in calls(), f"without a target it is stopped: {calls()}")
        check(not enabled.is_symlink(), "without a target it is disabled")
        root.install(self.packages["tenantry"])
        check(not enabled.is_symlink(), "it stays disabled when it is installed again")
        root.run("dpkg", "--purge", "tenantry-cortex-tenant")
        # It works in the name of a package only.
        root.run("env", "DPKG_MAINTSCRIPT_PACKAGE=tenantry", "deb-systemd-helper", "enable", "tenantry.service")

    @contextlib.contextmanager
    def systemd_listening(self):
        """Scripts find a systemd that does nothing; yields what it was told."""
        tool, log, mark = map(self.root.has, ("/usr/bin/systemctl", "/systemctl.log", "/run/systemd/system"))
        aside = tool.with_suffix(".away")
        if tool.exists():
            tool.rename(aside)
        # Images of Debian have a policy that services are neither started nor stopped.
        self.root.has("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        log.touch()
        mark.mkdir()
        tool.write_text('#!/bin/sh\necho "$@" >> /systemctl.log\n')
        tool.chmod(0o755)
        yield log.read_text
        tool.unlink()
        mark.rmdir()
        if aside.exists():
            aside.rename(tool)

    def service(self):
        """The unit's own command, as the unit's user, and its signals."""
        self.without_target()
        self.root.edit(CONFIG, (PLACEHOLDER, f"target: http://127.0.0.1:{UPSTREAM}/api/v1/push"))
        self.sink = sink(UPSTREAM, self.root.logs / "sink")
        self.server = Service(self.root, "tenantry")
        check(
            self.server.unit.one("ExecStart").startswith("/usr/bin/tenantry "), "the unit starts the packaged program"
        )
        self.server.start()
        uid = Path(f"/proc/{self.server.process.child.pid}/status").read_text().split("Uid:")[1].split()[0]
        check(int(uid) == int(self.root.run("id", "-u", "tenantry")), "it runs as the unit's user")
        pushes_arrive(PUSH, UPSTREAM, "--requests", "50", *LOAD)

        # Series without a tenant are refused, until a default is set.
        unlabelled = [LOADGEN, "send", "--url", f"http://127.0.0.1:{PUSH}/push", "--requests", "1", "--fail-on-error"]
        run(*unlabelled, "--tenant-label", "other", status=1)
        self.root.edit(CONFIG, ('#default: ""', "default: infra"))
        self.server.reload(METRICS)
        run(*unlabelled, "--tenant-label", "other")
        check(True, "a reload applies the configuration")

    def without_target(self):
        """As it is installed: senders must keep what they have, and repeat it."""
        server = Service(self.root, "tenantry")
        # Where the default target would be: Prometheus, whose 405 makes senders drop their data.
        prometheus = sink(9090, self.root.logs / "prometheus")
        server.start()
        push = (LOADGEN, "send", "--url", f"http://127.0.0.1:{PUSH}/push", "--requests", "1", "--fail-on-error")
        said = run(*push, "--tenant-label", "tenant", status=1)
        check("502" in said, f"a push gets 502: {said}")
        server.stop()
        prometheus.end()

    @contextlib.contextmanager
    def pushes_meanwhile(self):
        """Pushes while something else happens. Each sample that was acknowledged must be stored."""
        # Long enough for a slower upgrade than the installation was.
        seconds = UPGRADE_AFTER_S + 3 + round(3 * self.install_s)
        pushing = Process(
            [
                LOADGEN,
                "verify",
                "--url",
                f"http://127.0.0.1:{PUSH}/push",
                "--tenant-label",
                "tenant",
                *LOAD,
                "--sink",
                f"http://127.0.0.1:{UPSTREAM}/account",
                "--duration",
                f"{seconds}s",
                "--interval",
                "5ms",
            ],
            self.root.logs / "verify",
        )
        time.sleep(UPGRADE_AFTER_S)
        yield pushing
        check(pushing.child.poll() is None, f"the pushes go on longer than the upgrade: {pushing.output()}")
        check(pushing.wait(60) == 0, f"nothing is lost: {pushing.output()}")
        print("\n".join(f"      {line}" for line in pushing.output().splitlines() if line.strip()))

    def upgrade(self):
        before = self.root.has(CONFIG).read_text()
        with self.pushes_meanwhile():
            said = self.root.install(self.newer["tenantry"])
            check("ERRORS" not in said, f"the configuration is sound: {said}")
            # Without systemd, postinst cannot restart it.
            self.server.restart()
        check(
            f"ok installed {self.newer_version}" in self.root.installed_version("tenantry"), "the new one is installed"
        )
        check(self.root.has(CONFIG).read_text() == before, "the administrator's configuration stays")

    def socket_unit(self):
        """With the socket unit, no connection is refused while the service restarts."""
        self.server.stop()
        self.server.listen_as(Unit(self.root.has("/usr/lib/systemd/system/tenantry.socket")))
        self.server.start()
        with self.pushes_meanwhile() as pushing:
            self.root.install(self.newer["tenantry"])
            self.server.restart()
        check("refused" not in pushing.output().split("settled")[0], f"nothing is refused: {pushing.output()}")
        self.server.stop()
        self.server.listen_itself()
        self.server.start()

    def refused_configuration(self):
        """A new version that refuses the configuration says so, and the running server goes on."""
        config = self.root.has(CONFIG)
        sound = config.read_text()
        self.root.edit(CONFIG, ("tenant:", "tennant:"))
        said = self.root.install(self.newer["tenantry"])
        check("THE CONFIGURATION HAS ERRORS" in said, f"the upgrade tells: {said}")
        check(f"{CONFIG}:" in said and "tennant" in said, f"file, line and key are named: {said}")
        check("systemctl restart tenantry" in said, f"what to do is said: {said}")
        pushes_arrive(PUSH, UPSTREAM, "--requests", "20", *LOAD)
        config.write_text(sound)

        self.root.edit("/etc/default/tenantry", ("#CT_CORES=0", 'CT_CORES="many"'))
        said = self.root.install(self.newer["tenantry"])
        check("CT_CORES" in said, f"variables are checked, too: {said}")
        # systemd ends a value before blanks, and a line before a carriage return.
        variables = self.root.has("/etc/default/tenantry")
        before = variables.read_text().replace('CT_CORES="many"', "CT_CORES=1")
        self.root.edit("/etc/default/tenantry", ('CT_CORES="many"', 'CT_CORES="1" \r'))
        config.chmod(0o640)
        self.root.run("addgroup", "--system", "secrets")
        self.root.run("usermod", "--append", "--groups", "secrets", "tenantry")
        self.root.run("chgrp", "secrets", CONFIG)
        said = self.root.install(self.newer["tenantry"])
        check("ERRORS" not in said, f"it is read with the user's groups, and with variables as systemd's: {said}")
        self.root.run("chgrp", "tenantry", CONFIG)
        variables.write_text(before)

    def unreadable_configuration(self):
        """A configuration that only root can read."""
        config = self.root.has(CONFIG)
        uid = self.root.run("id", "-u", "tenantry").strip()
        config.chmod(0o600)
        said = self.root.install(self.newer["tenantry"])
        self.server.stop()
        self.server.launch()
        check(self.server.process.wait() == 64, "it does not start")
        for text in (said, self.server.process.output()):
            check(CONFIG in text and "ermission denied" in text, f"the file is named: {text}")
            check(f"user {uid}" in text and "chgrp" in text, f"the user is named, and what to do: {text}")
        config.chmod(0o640)
        self.server.start()
        pushes_arrive(PUSH, UPSTREAM, "--requests", "20", *LOAD)

    def full_disk(self):
        """An upgrade on a full disk fails, says why, leaves the old program working, and can be repeated."""
        usr_bin = self.root.has("/usr/bin")
        small = self.root.path.parent / "small"
        small.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", small)
        shutil.copytree(usr_bin, small, symlinks=True, dirs_exist_ok=True)
        used = int(run("df", "--output=used", "--block-size=1", small).split()[-1])
        run("mount", "-o", f"remount,size={used + (1 << 20)}", small)
        run("mount", "--bind", small, usr_bin)
        said = self.root.install(self.packages["tenantry"], status=1)
        check("No space left on device" in said, f"the reason is said: {said}")
        check("tenantry" in self.root.run("/usr/bin/tenantry", "--version"), "the old program still runs")
        pushes_arrive(PUSH, UPSTREAM, "--requests", "20", *LOAD)
        run("mount", "-o", "remount,size=1g", small)
        self.root.install(self.newer["tenantry"])
        check(f"ok installed {self.newer_version}" in self.root.installed_version("tenantry"), "a retry succeeds")
        run("umount", usr_bin)
        self.root.install(self.newer["tenantry"])

    def cortex_tenant(self):
        """The second package replaces cortex-tenant's, and runs with its configuration."""
        root = self.root
        root.install(self.old_package())
        root.edit("/etc/default/cortex-tenant", ("/etc/cortex-tenant.yml", "/etc/tenants/prod.yml"))
        root.has("/etc/tenants").mkdir()
        config = root.has("/etc/tenants/prod.yml")
        config.write_text(
            f"listen: 127.0.0.1:8085\nlisten_metrics_address: 127.0.0.1:9095\n"
            f"target: http://127.0.0.1:{UPSTREAM}/push\ntenant:\n  label: tenant\n"
        )
        said = root.run("dpkg", "--auto-deconfigure", "-B", "--install", self.copied("tenantry-cortex-tenant"))
        check("removing cortex-tenant" in said.lower(), f"it replaces the other package: {said}")
        check("ERRORS" not in said, f"their configuration is sound: {said}")
        variables = root.has("/etc/default/cortex-tenant")
        check("/etc/tenants/prod.yml" in variables.read_text(), "their variables stay as they were")
        check(not list(variables.parent.glob("*saved*")), "no copy is left")
        for command in ("/usr/bin/cortex-tenant", "/usr/sbin/cortex-tenant"):
            check("tenantry" in root.run(command, "-version"), f"{command} is there")
        server = Service(root, "cortex-tenant")
        server.start()
        pushes_arrive(8085, UPSTREAM, "--requests", "20", *LOAD)
        server.stop()
        sound = config.read_text()
        config.write_text(sound.replace("tenant:", "tennant:"))
        said = root.install(self.newer["tenantry-cortex-tenant"])
        check("/etc/tenants/prod.yml" in said and "tennant" in said, f"the file of CONFIG_FILE is checked: {said}")
        config.write_text(sound)
        root.run("dpkg", "--purge", "tenantry-cortex-tenant")
        check(not root.has("/usr/sbin/cortex-tenant").is_symlink(), "the command is gone with its package")
        check(config.exists() and variables.exists(), "their configuration stays")

    def copied(self, name):
        shutil.copy(self.newer[name], self.root.path)
        return f"/{self.newer[name].name}"

    def old_package(self):
        """A package with the files that cortex-tenant's has."""
        tree = self.work / "cortex-tenant"
        shutil.rmtree(tree, ignore_errors=True)
        for path, text in {
            "usr/sbin/cortex-tenant": "#!/bin/sh\n",
            "etc/systemd/system/cortex-tenant.service": "[Service]\nExecStart=/usr/sbin/cortex-tenant\n",
            "etc/default/cortex-tenant": 'CONFIG_FILE="/etc/cortex-tenant.yml"\n',
            "DEBIAN/control": "Package: cortex-tenant\nVersion: 1.15.2\nArchitecture: all\n"
            "Maintainer: x <x@x.example>\nDescription: stands for the original\n",
        }.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        package = self.work / "cortex-tenant_1.15.2_all.deb"
        run("dpkg-deb", "--build", "--root-owner-group", tree, package)
        return package

    def removal(self):
        self.server.stop()
        self.sink.end()
        root = self.root
        root.has("/etc/tenantry/tenants.yml").write_text("{}\n")
        root.run("dpkg", "--remove", "tenantry")
        check(not root.has("/usr/bin/tenantry").exists(), "the program is gone")
        check("default: infra" in root.has(CONFIG).read_text(), "the configuration stays")
        check(root.has("/etc/default/tenantry").exists(), "the variables stay")

        root.install(self.newer["tenantry"])
        check("default: infra" in root.has(CONFIG).read_text(), "a new installation finds it")

        # As systemd leaves it.
        root.has("/var/lib/tenantry").mkdir()
        root.run("dpkg", "--purge", "tenantry")
        paths = ("/etc/tenantry", "/etc/default/tenantry", "/var/lib/tenantry")
        left = [path for path in paths if root.has(path).exists()]
        check(not left, f"a purge removes the configuration and an empty state directory, but left {left}")
        wants = root.has("/etc/systemd/system/multi-user.target.wants/tenantry.service")
        check(not wants.is_symlink(), "the service is not enabled any more")
        check(
            "unknown" in root.installed_version("tenantry") or "no packages" in root.installed_version("tenantry"),
            "dpkg knows nothing of it any more",
        )


def tests(out, newer, work):
    debian = Debian(out, newer, work)
    for name in (
        "installation",
        "unset_target",
        "service",
        "upgrade",
        "socket_unit",
        "refused_configuration",
        "full_disk",
        "cortex_tenant",
        "unreadable_configuration",
        "removal",
    ):
        yield name.replace("_", " "), getattr(debian, name)
