"""Prints the licences of everything in the program that others wrote: the crates that are linked into it, with what
they bundle, and the C library. Each text is there once, with the names of those that have it.

    licenses.py

The same Cargo.lock and the same Debian packages give the same bytes.
"""

import os
import re
import sys
from pathlib import Path

import sbom

NAMES = re.compile(r"(un)?licen[cs]e|copying|notice|copyright", re.IGNORECASE)
CODE = {".rs", ".c", ".h", ".py", ".toml", ".json", ".yml"}
GLIBC = Path("/usr/share/doc/libc6/copyright")
RULE = "=" * 80


def texts_of(crate):
    """The crate's licence texts, also those of C sources within it, by their paths."""
    root = Path(crate["manifest_path"]).parent
    files = [
        Path(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
        if NAMES.match(name) and Path(name).suffix not in CODE
    ]
    return {str(file.relative_to(root)): file.read_text(errors="replace") for file in files}


def normal(text):
    """The text without the differences of line ends and of blanks at them."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def collected(crates):
    """The lines of the overview, and the names of those that have each text."""
    overview, owners, missing = [], {}, []
    for crate in sorted(crates, key=lambda crate: (crate["name"], crate["version"])):
        name = f"{crate['name']} {crate['version']}"
        texts = texts_of(crate)
        terms = sbom.terms(crate)
        if not texts and not terms:
            missing.append(name)
        line = f"{name}: {terms or 'see its text'}"
        if not texts:
            # The licence asks for the name of the holder.
            line += f" (brings no text; by {', '.join(crate['authors']) or crate['repository'] or 'unnamed authors'})"
        overview.append(line)
        for path, text in texts.items():
            owners.setdefault(normal(text), []).append(f"{name}, {path}")
    if missing:
        sys.exit(f"neither a licence nor its text: {', '.join(missing)}")
    return overview, owners


def main():
    metadata = sbom.metadata()
    _, linked = sbom.linked_packages(metadata)
    # Those without a source are this repository's own.
    crates = [p for p in metadata["packages"] if p["id"] in linked and p["source"]]
    overview, owners = collected(crates)
    overview.append("Rust's standard library: MIT OR Apache-2.0")
    overview.append("GNU C Library: LGPL-2.1-or-later")
    owners.setdefault(normal(GLIBC.read_text()), []).append("GNU C Library, Debian's copyright file")

    print("The program contains these works, with these licences. Their texts follow, each once.\n")
    print("\n".join(overview))
    for text, names in sorted(owners.items(), key=lambda item: sorted(item[1])):
        print(f"\n{RULE}")
        print("\n".join(sorted(names)))
        print(f"{RULE}\n\n{text}")


main()
