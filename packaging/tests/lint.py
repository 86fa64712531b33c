"""What others' tools say about packages, units and image."""

import gzip
import json
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

    def licences():
        """Each component of the program has its licence, and those that bundle C sources have the texts of these."""
        (tarball,) = out.glob("*-linux-amd64.tar.gz")
        unpacked = work / "licences"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        run("tar", "--extract", "--gzip", "--file", tarball, "--directory", unpacked, "--strip-components=1")
        text = gzip.open(unpacked / "usr/share/doc/tenantry/THIRD-PARTY-LICENSES.gz", "rt").read()
        (bill,) = out.glob("*.cdx.json")
        crates = [c for c in json.loads(bill.read_text())["components"] if c.get("purl", "").startswith("pkg:cargo/")]
        check(len(crates) > 50, f"it has crates: {len(crates)}")
        for crate in crates:
            check(f"\n{crate['name']} {crate['version']}: " in text, f"{crate['name']} has a licence")
        for owner in ("zstd/LICENSE\n", "c_src/mimalloc", "third_party/fiat/LICENSE\n", "GNU C Library, Debian's"):
            check(owner in text, f"the text of {owner} is there")
        check(text.count("\nGNU C Library: ") == 1 and "LGPL" in text, "the C library has its licence")

    yield "licences", licences
    yield "units", units
    yield "hadolint", hadolint
    yield "lintian", lintian
