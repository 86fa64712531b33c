"""The .rpm packages, with Debian's rpm: what they contain and require, and what their scripts do."""

from rootfs import Root, Service
from world import check, pushes_arrive, run, sink

CONFIG = "/etc/tenantry/tenantry.yml"


class Fedora:
    """The tests in order."""

    def __init__(self, out, newer, work):
        (self.package,) = out.glob("tenantry-[0-9]*.rpm")
        (self.cortex_tenant,) = out.glob("tenantry-cortex-tenant-*.rpm")
        (self.newer,) = newer.glob("tenantry-[0-9]*.rpm")
        self.work = work

    def contents(self):
        files = run("rpm", "--query", "--package", "--list", self.package).split("\n")
        for path in (
            "/usr/bin/tenantry",
            "/usr/lib/systemd/system/tenantry.service",
            CONFIG,
            "/usr/lib/systemd/system/tenantry.socket",
            "/usr/lib/sysusers.d/tenantry.conf",
            "/usr/share/man/man1/tenantry.1.gz",
            "/usr/share/man/man5/tenantry.yml.5.gz",
            "/usr/share/zsh/site-functions/_tenantry",
            "/usr/share/licenses/tenantry/LICENSE",
        ):
            check(path in files, f"it has {path}")
        foreign = {"/etc", "/etc/default", "/usr", "/usr/bin", "/usr/share", "/usr/lib", "/usr/lib/systemd"} & set(
            files
        )
        check(not foreign, f"it owns no directory of the system, but has {foreign}")
        configs = run("rpm", "--query", "--package", "--configfiles", self.package).split()
        check(sorted(configs) == ["/etc/default/tenantry", CONFIG], f"its configuration files: {configs}")
        flags = run(
            "rpm", "--query", "--package", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", self.package
        )
        check(f"{CONFIG} cn" in flags, f"the configuration is %config(noreplace): {flags}")
        check("/usr/share/licenses/tenantry/LICENSE l" in flags, f"the licence is %license: {flags}")
        requires = run("rpm", "--query", "--package", "--requires", self.package)
        check("util-linux" in requires and "libc.so" not in requires, f"it requires no library: {requires}")
        run("rpm", "--checksig", "--nosignature", self.package)
        check("cortex-tenant" in run("rpm", "--query", "--package", "--provides", self.cortex_tenant), "the second one")

    def scripts(self):
        """rpm runs its scripts in a root of Debian, whose packages it does not know."""
        self.root = root = Root(self.work, "rpm")
        root.has("/usr/bin/systemd-sysusers").unlink(missing_ok=True)
        root.has("/usr/sbin/adduser").unlink(missing_ok=True)
        rpm = ("rpm", "--root", root.path, "--nodeps", "--noplugins")
        run(*rpm, "--install", self.package)
        check("nologin" in root.run("getent", "passwd", "tenantry"), "useradd makes the user")
        upstream = sink(9009, root.logs / "sink")
        root.edit(CONFIG, ("target: http://127.0.0.1:9/", "target: http://127.0.0.1:9009/api/v1/push"))
        server = Service(root, "tenantry")
        server.start()
        pushes_arrive(8081, 9009, "--requests", "20")

        said = run(*rpm, "--upgrade", self.newer)
        check("ERRORS" not in said, f"the configuration is sound: {said}")
        server.restart()
        pushes_arrive(8081, 9009, "--requests", "20")
        check("target: http://127.0.0.1:9009" in root.has(CONFIG).read_text(), "an upgrade keeps the configuration")
        root.edit(CONFIG, ("tenant:", "tennant:"))
        said = run(*rpm, "--upgrade", "--force", self.newer)
        check("THE CONFIGURATION HAS ERRORS" in said and "tennant" in said, f"a refused configuration is told: {said}")
        server.stop()
        upstream.end()

        run(*rpm, "--erase", "tenantry")
        check(not root.has("/usr/bin/tenantry").exists(), "the program is gone")
        check(root.has(f"{CONFIG}.rpmsave").exists(), "a changed configuration is kept aside")


def tests(out, newer, work):
    fedora = Fedora(out, newer, work)
    yield "contents", fedora.contents
    yield "scripts", fedora.scripts
