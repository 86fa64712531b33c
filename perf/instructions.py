"""Compares counts of instructions with perf/instructions.json, or writes them there. See .ci/instructions."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

BASELINE = Path("perf/instructions.json")
# A stage's counts differ by far less from run to run: see perf/README.md.
TOLERANCE = 0.03
# On another model of CPU. Valgrind shows programs one of its own, so it should make no difference; nobody has tried.
TOLERANCE_ELSEWHERE = 0.1
# A stage is measured twice in each run. The first may grow a buffer that the second finds.
SPREAD_MAX = 0.02


def version(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def cpu():
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def total(part):
    found = re.search(r"^(?:totals|summary): (\d+)", part.read_text(), re.MULTILINE)
    if not found:
        sys.exit(f"{part} has no total")
    return int(found[1])


def counts(folder):
    """The counts of each stage: callgrind numbers its files in the order in which the stages were left."""
    stages = {}
    for number, name in enumerate((folder / "stages").read_text().splitlines(), 1):
        stages.setdefault(name, []).append(total(folder / f"part.{number}"))
    if not stages:
        sys.exit("callgrind has measured nothing")
    return stages


def main(folder):
    stages = counts(Path(folder))
    unstable = [name for name, (one, other) in stages.items() if abs(one - other) > SPREAD_MAX * min(one, other)]
    found = {
        "rustc": version("rustc", "--version"),
        "valgrind": version("valgrind", "--version"),
        "machine": platform.machine(),
        "cpu": cpu(),
        "instructions": {name: min(both) for name, both in stages.items()},
    }
    if os.environ.get("UPDATE_BASELINE") == "1":
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{BASELINE} written: {len(stages)} stages")
        return
    baseline = json.loads(BASELINE.read_text())
    tolerance = TOLERANCE if found["cpu"] == baseline["cpu"] else TOLERANCE_ELSEWHERE
    above, below = compare(found["instructions"], baseline["instructions"], tolerance)
    for name in unstable:
        print(f"twice the same, and not the same count: {name}: {stages[name]}")
    others = [key for key in ("rustc", "valgrind", "machine") if found[key] != baseline[key]]
    for key in others:
        print(f"the baseline is of another {key}, so this is no failure: {baseline[key]}, not {found[key]}")
    if below:
        print(f"better than the baseline: UPDATE_BASELINE=1 .ci/instructions keeps it: {', '.join(below)}")
    if above:
        print(f"worse than the baseline, or without one: {', '.join(above)}")
        print("If it has to be, UPDATE_BASELINE=1 .ci/instructions writes the new counts; the commit says why.")
    sys.exit(1 if above and not others else 0)


def compare(found, baseline, tolerance):
    """Prints all stages. Returns those above and those below the baseline; what only one side knows counts as above."""
    above = [name for name in baseline if name not in found]
    below = []
    print(f"{'instructions':>12}  {'baseline':>12}")
    for name, count in found.items():
        expected = baseline.get(name)
        change = (count - expected) / expected if expected else float("inf")
        print(f"{count:12,}  {expected or 0:12,}  {change:+8.2%}  {name}")
        if change > tolerance:
            above.append(name)
        elif change < -tolerance:
            below.append(name)
    return above, below


main(*sys.argv[1:])
