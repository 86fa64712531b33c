"""Links the program statically from what `cargo test --release --workspace` has built.

    relink.py OUTPUT

`cargo rustc -p tenantry` would build most of it anew, as features of the dependencies differ when the package is built
alone. This compiles only main.rs.
"""

import json
import os
import subprocess
import sys


def cargo(*command):
    return subprocess.run(["cargo", *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def libraries():
    """The libraries that the tests run against, by package: name and file."""
    found = {}
    messages = cargo(
        "test", "--quiet", "--release", "--workspace", "--no-run", "--message-format=json-render-diagnostics"
    )
    for message in map(json.loads, messages.splitlines()):
        if message.get("reason") != "compiler-artifact" or message["profile"]["test"]:
            continue
        # Procedural macros are .so files.
        files = [file for file in message["filenames"] if file.endswith((".rlib", ".so"))]
        if files:
            found[message["package_id"]] = (message["target"]["name"].replace("-", "_"), files[0])
    return found


def main():
    metadata = json.loads(cargo("metadata", "--format-version=1", "--locked"))
    package = next(p for p in metadata["packages"] if p["name"] == "tenantry")
    node = next(n for n in metadata["resolve"]["nodes"] if n["id"] == package["id"])
    built = libraries()
    needed = [package["id"], *(d["pkg"] for d in node["deps"] if any(k["kind"] is None for k in d["dep_kinds"]))]
    externs = []
    for identity in needed:
        if identity in built:
            name, file = built[identity]
            externs += ["--extern", f"{name}={file}"]
    dependencies = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/deps")
    variables = {
        "CARGO_MANIFEST_DIR": os.getcwd(),
        "CARGO_PKG_NAME": "tenantry",
        "CARGO_PKG_VERSION": package["version"],
    }
    subprocess.run(
        [
            "rustc",
            "--crate-name=tenantry",
            f"--edition={package['edition']}",
            "--crate-type=bin",
            "src/main.rs",
            "-Copt-level=3",
            "-Ctarget-feature=+crt-static",
            f"-Ldependency={dependencies}",
            *externs,
            "-o",
            sys.argv[1],
        ],
        check=True,
        env=os.environ | variables,
    )


main()
