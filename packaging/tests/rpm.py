"""The .rpm packages, with Debian's rpm: what they contain and require, and what their scripts do."""

import os

from rootfs import Root, Service
from world import check, pushes_arrive, run, sink

CONFIG = "/etc/tenantry/tenantry.yml"


class Fedora:
    """The tests in order."""

    def __init__(self, out, newer, work):
        (self.package,) = out.glob("tenantry-[0-9]*.rpm")
        (self.cortex_tenant,) = out.glob("tenantry-cortex-tenant-*.rpm")
        (self.newer_cortex_tenant,) = newer.glob("tenantry-cortex-tenant-*.rpm")
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
            "/usr/share/licenses/tenantry/THIRD-PARTY-LICENSES.gz",
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
        check("/usr/sbin/useradd" in requires, f"it requires what makes the user: {requires}")
        check("util-linux" in requires and "libc.so" not in requires, f"it requires no library: {requires}")
        run("rpm", "--checksig", "--nosignature", self.package)
        check("cortex-tenant" in run("rpm", "--query", "--package", "--provides", self.cortex_tenant), "the second one")

    def scripts(self):
        """rpm runs its scripts in a root of Debian, whose packages it does not know."""
        self.root = root = Root(self.work, "rpm")
        root.has("/usr/bin/systemd-sysusers").unlink(missing_ok=True)
        root.has("/usr/sbin/adduser").unlink(missing_ok=True)
        self.rpm("--install", self.package)
        check("nologin" in root.run("getent", "passwd", "tenantry"), "useradd makes the user")
        self.configuration_is_private()
        self.rpm("--upgrade", self.newer)
        self.configuration_is_private()
        self.replaced_cortex_tenant()

        upstream = sink(9009, root.logs / "sink")
        root.edit(CONFIG, ("target: http://127.0.0.1:9/", "target: http://127.0.0.1:9009/api/v1/push"))
        server = Service(root, "tenantry")
        server.start()
        pushes_arrive(8081, 9009, "--requests", "20")

        said = self.rpm("--upgrade", "--force", self.newer)
        check("ERRORS" not in said, f"the configuration is sound: {said}")
        server.restart()
        pushes_arrive(8081, 9009, "--requests", "20")
        check("target: http://127.0.0.1:9009" in root.has(CONFIG).read_text(), "an upgrade keeps the configuration")
        root.edit(CONFIG, ("tenant:", "tennant:"))
        said = self.rpm("--upgrade", "--force", self.newer)
        check("THE CONFIGURATION HAS ERRORS" in said and "tennant" in said, f"a refused configuration is told: {said}")
        server.stop()
        upstream.end()

        self.rpm("--erase", "tenantry")
        check(not root.has("/usr/bin/tenantry").exists(), "the program is gone")
        check(root.has(f"{CONFIG}.rpmsave").exists(), "a changed configuration is kept aside")

    def rpm(self, *arguments):
        said = run("rpm", "--root", self.root.path, "--nodeps", "--noplugins", *arguments)
        check("scriptlet failed" not in said, f"no script fails: {said}")
        return said

    def configuration_is_private(self):
        mode = self.root.run("stat", "-c", "%a %U %G", CONFIG).strip()
        check(mode == "640 root tenantry", f"others cannot read the configuration: {mode}")

    def replaced_cortex_tenant(self):
        """The second package takes the place of cortex-tenant's, which is erased, and keeps its variables."""
        root = self.root
        self.rpm("--install", self.old_package())
        root.edit("/etc/sysconfig/cortex-tenant", ("/etc/cortex-tenant.yml", "/etc/prod.yml"))
        root.has("/etc/prod.yml").write_text("tennant:\n  label: tenant\n")
        enabled = root.has("/etc/systemd/system/multi-user.target.wants/tenantry.service")
        enabled.parent.mkdir(parents=True, exist_ok=True)
        enabled.unlink(missing_ok=True)
        enabled.symlink_to("/usr/lib/systemd/system/tenantry.service")
        said = self.rpm("--upgrade", self.newer_cortex_tenant)
        installed = run("rpm", "--root", root.path, "--query", "--all", "--queryformat", "%{NAME}\n").split()
        check(sorted(installed) == ["tenantry", "tenantry-cortex-tenant"], f"cortex-tenant is replaced: {installed}")
        variables = root.has("/etc/sysconfig/cortex-tenant")
        check("/etc/prod.yml" in variables.read_text(), "their variables stay as they were")
        check(not list(variables.parent.glob("*saved*")), "no copy is left")
        check("/etc/prod.yml" in said and "tennant" in said, f"the file of CONFIG_FILE is checked: {said}")
        if root.has("/usr/bin/systemctl").exists():
            check(not enabled.is_symlink(), "tenantry.service, which has no target, is disabled")
        self.rpm("--erase", "tenantry-cortex-tenant")

    def old_package(self):
        """A package with the files that cortex-tenant's has."""
        tree = self.root.path.parent / "cortex-tenant"
        tree.mkdir()
        (tree / "program").write_text("#!/bin/sh\n")
        (tree / "variables").write_text('CONFIG_FILE="/etc/cortex-tenant.yml"\n')
        (tree / "nfpm.yml").write_text(
            "name: cortex-tenant\nversion: 1.15.2\narch: all\nmaintainer: x <x@x.example>\ndescription: stands for it\n"
            "contents:\n"
            "  - { src: program, dst: /usr/sbin/cortex-tenant }\n"
            "  - { src: variables, dst: /etc/sysconfig/cortex-tenant }\n"
        )
        command = (f"{os.environ['TOOLS']}/bin/nfpm", "package", "--config", "nfpm.yml", "--packager", "rpm")
        run(*command, "--target", "old.rpm", cwd=tree)
        return tree / "old.rpm"


def tests(out, newer, work):
    fedora = Fedora(out, newer, work)
    yield "contents", fedora.contents
    yield "scripts", fedora.scripts
