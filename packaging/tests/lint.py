"""What others' tools say about packages, units and image."""

import os
import shutil

from world import REPOSITORY, check, run

UNITS = ("tenantry.service", "tenantry.socket", "cortex-tenant.service")


def tests(out, _newer, work):
    def lintian():
        found = run(
            "lintian",
            "--fail-on",
            "error,warning",
            "--tag-display-limit",
            "0",
            "--allow-root",
            *sorted(out.glob("*.deb")),
        )
        print("\n".join(f"      {line}" for line in found.splitlines()))
        check(True, "lintian finds neither errors nor warnings")

    def units():
        root = work / "units"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
        for package in out.glob("*.deb"):
            run("dpkg-deb", "--extract", package, root)
        for directory in ("usr/bin", "etc"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        shutil.copy("/usr/bin/kill", root / "usr/bin")
        (root / "bin").symlink_to("usr/bin")
        (root / "etc/passwd").write_text("tenantry:x:999:999::/:/usr/sbin/nologin\n")
        found = run("systemd-analyze", "verify", f"--root={root}", "--man=no", *UNITS)
        check(found == "", f"systemd finds nothing wrong in the units: {found}")

    def hadolint():
        run(f"{os.environ['TOOLS']}/bin/hadolint", REPOSITORY / "Containerfile")
        check(True, "hadolint finds nothing")

    yield "units", units
    yield "hadolint", hadolint
    yield "lintian", lintian
