"""Tests the packages and the image in namespaces of their own.

    run.py OUT NEWER WORK [lint|deb|rpm|image ...]

OUT has the artefacts, NEWER has packages of a higher version, and WORK is for scratch files. LOADGEN names loadgen.
"""

import importlib
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

import world


def enter_namespaces():
    if os.environ.get("TENANTRY_TEST_NAMESPACES") == "entered":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    os.environ["TENANTRY_TEST_NAMESPACES"] = "entered"
    # --kill-child: when unshare ends, nothing that the tests started goes on.
    options = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    os.execvp("unshare", ["unshare", *options, "--", sys.executable, "-B", *sys.argv])


def main():
    out, newer, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    enter_namespaces()
    passed = failed = 0
    for subject in sys.argv[4:] or ["lint", "deb", "rpm", "image"]:
        for name, test in importlib.import_module(subject).tests(out, newer, work):
            begun = time.monotonic()
            world.DONE.clear()
            try:
                test()
                passed += 1
                print(
                    f"ok    {subject}: {name} ({len(world.DONE)} checks, {time.monotonic() - begun:.1f} s)", flush=True
                )
            except Exception:
                failed += 1
                print(f"FAILED {subject}: {name}", flush=True)
                traceback.print_exc()
                # Those after it go on from where it should have ended.
                break
        for process in world.STARTED:
            process.end()
    print(f"packages: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
