"""Links the program statically from what `cargo build --release --workspace` has built.

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
    """The files of all crates of the workspace's build, by package."""
    files = {}
    for line in cargo("build", "--quiet", "--release", "--workspace", "--message-format=json-render-diagnostics").split("\n"):
        message = json.loads(line or "{}")
        kinds = set(message.get("target", {}).get("kind", []))
        if message.get("reason") == "compiler-artifact" and kinds & {"lib", "rlib", "proc-macro"}:
            # The last of several is that for this machine, and the first may be for build scripts.
            files[message["package_id"]] = (message["target"]["name"].replace("-", "_"), message["filenames"])
    return files


def main():
    metadata = json.loads(cargo("metadata", "--format-version=1", "--locked"))
    package = next(p for p in metadata["packages"] if p["name"] == "tenantry")
    node = next(n for n in metadata["resolve"]["nodes"] if n["id"] == package["id"])
    built = libraries()
    needed = [package["id"], *(d["pkg"] for d in node["deps"] if any(k["kind"] is None for k in d["dep_kinds"]))]
    externs = []
    for identity in needed:
        if identity in built:
            name, files = built[identity]
            externs += ["--extern", f"{name}={next(f for f in files if f.endswith(('.rlib', '.so')))}"]
    dependencies = os.path.dirname(externs[-1].split("=", 1)[1])
    variables = {"CARGO_MANIFEST_DIR": os.getcwd(), "CARGO_PKG_NAME": "tenantry", "CARGO_PKG_VERSION": package["version"]}
    subprocess.run(
        ["rustc", "--crate-name=tenantry", f"--edition={package['edition']}", "--crate-type=bin", "src/main.rs",
         "-Copt-level=3", "-Ctarget-feature=+crt-static", f"-Ldependency={dependencies}", *externs, "-o", sys.argv[1]],
        check=True,
        env=os.environ | variables,
    )


main()
