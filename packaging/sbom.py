"""Prints the software bill of materials of the program, as CycloneDX 1.6: the crates that are linked into it, with
their checksums and licences, and what Rust and the C library add.

    sbom.py VERSION

The same Cargo.lock, toolchain and SOURCE_DATE_EPOCH give the same bytes.
"""

import json
import os
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

LICENSES = LicenseFactory()


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def metadata():
    """What cargo knows about the packages of the program."""
    return json.loads(
        output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu")
    )


def terms(package):
    """The package's licence, as an SPDX expression, or nothing."""
    # Old crates write MIT/Apache-2.0 where SPDX has OR.
    return (package["license"] or "").replace("/", " OR ")


def linked_packages(metadata):
    """The packages that are linked into the program: those that it needs at run time, not those for tests or builds."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(p["id"] for p in metadata["packages"] if p["name"] == "tenantry")
    at_build_time = {p["id"] for p in metadata["packages"] if any("proc-macro" in t["kind"] for t in p["targets"])}
    edges, waiting = {}, [root]
    while waiting:
        package = waiting.pop()
        if package in edges:
            continue
        edges[package] = [
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if dependency["pkg"] not in at_build_time and any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        waiting += edges[package]
    return root, edges


def component(package, version, checksums, kind=ComponentType.LIBRARY):
    name = package["name"]
    purl = PackageURL("cargo", name=name, version=version)
    license_text = terms(package)
    checksum = checksums.get((name, version))
    return Component(
        name=name,
        version=version,
        type=kind,
        purl=purl,
        bom_ref=str(purl),
        description=package["description"] and " ".join(package["description"].split()),
        licenses=[LICENSES.make_from_string(license_text)] if license_text else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
    )


def toolchain():
    """The parts of the program that no crate brings."""
    rust = output("rustc", "--version").split()[1]
    libc = output("ldd", "--version").splitlines()[0].split("GLIBC ")[1].split(")")[0]
    return [
        Component(name=name, version=version, bom_ref=f"{name}@{version}", licenses=[LICENSES.make_from_string(text)])
        for name, version, text in (
            ("rust-std", rust, "MIT OR Apache-2.0"),
            ("glibc", libc, "LGPL-2.1-or-later"),
        )
    ]


def bill(version):
    with open("Cargo.lock", "rb") as file:
        lock = tomllib.load(file)
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    known = metadata()
    packages = {p["id"]: p for p in known["packages"]}
    root, edges = linked_packages(known)
    components = {
        package: component(packages[package], packages[package]["version"], checksums)
        for package in edges
        if package != root
    }
    components[root] = component(packages[root], version, checksums, ComponentType.APPLICATION)
    extra = toolchain()
    bom = Bom(components=[c for package, c in components.items() if package != root] + extra)
    bom.metadata.component = components[root]
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    for package, needed in edges.items():
        needed = [components[other] for other in needed]
        bom.register_dependency(components[package], needed + extra if package == root else needed)
    names = sorted(f"{c.name}@{c.version}" for c in [*components.values(), *extra])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(names))
    return bom


def main():
    text = JsonV1Dot6(bill(sys.argv[1])).output_as_string(indent=1)
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the bill of materials is not valid CycloneDX: {errors}")
    print(text)


if __name__ == "__main__":
    main()
