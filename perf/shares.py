#!/usr/bin/env python3
"""Where a server's CPU time goes, from the stacks that `perf/profile flame` writes: a table in Markdown.

Each sample counts once, for the first line of the table one of whose patterns is in its stack.
"""
import sys
from collections import Counter

# The work that nobody who splits can spare comes first; then moving bytes; then what remains.
LINES = [
    ("deflating the parts", ["Deflater::", "snap::compress", "Merger::"]),
    ("inflating the body", ["Inflater::"]),
    ("scanning: labels, tenants", ["Splitter::scan"]),
    ("splitting: copying series into parts", ["Splitter::next_part"]),
    ("receipts: hashing the parts", ["ReceiptKey::"]),
    ("the kernel: sending", ["tcp_sendmsg", "io_write", "io_send", "sock_sendmsg", "inet_shutdown"]),
    ("the kernel: receiving", ["tcp_recvmsg", "io_recv", "io_read", "sock_recvmsg"]),
    ("the kernel: the rest of the ring and of sockets", ["entry_SYSCALL", "asm_", "irq", "schedule"]),
    ("ingest: HTTP, admitting, fragments, answers", ["tenantry::ingest", "tenantry::http"]),
    ("egress: lanes, connections, heads, replies", ["tenantry::egress", "tenantry::upstream"]),
    ("messages between cores", ["tenantry::core", "tenantry::exchange"]),
    ("the runtime: tasks, timers, completions", [""]),
]


def shares(path):
    """The share of each line, in percent."""
    counts = Counter()
    with open(path, encoding="utf-8") as stacks:
        for line in stacks:
            stack, samples = line.rsplit(" ", 1)
            what = next(name for name, patterns in LINES if any(pattern in stack for pattern in patterns))
            counts[what] += int(samples)
    total = sum(counts.values())
    return {name: 100 * counts[name] / total for name, _ in LINES}


def main(paths):
    """Prints the table, with a column for each file."""
    if not paths:
        sys.exit("usage: perf/shares.py FILE.folded ...")
    columns = [shares(path) for path in paths]
    print("| |" + "".join(f" {path.rsplit('/', 1)[-1].removesuffix('.folded')} |" for path in paths))
    print("|---|" + "---:|" * len(paths))
    for name, _ in LINES:
        print(f"| {name} |" + "".join(f" {column[name]:.1f} % |" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
