"""The real server, with loadgen as its senders and its upstream."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from programs import LOADGEN, TENANTRY, free_port, listens, stop, until

# The upstream refuses this tenant, with a text that is meant to do harm.
FAILING = "identity"
REASON = "<img src=x onerror='window.harmed = true'> \\u202eerr-mimir-max-label-names-per-series\\n"
FAULTS = f"""
seed: 1
rules:
  - tenant: {FAILING}
    status: {{code: 400, headers: {{Content-Type: text/plain}}, body: "{REASON}"}}
"""

# A tenant ID by the loosest rules that there are: visible ASCII without slashes.
HOSTILE = "<img_src=x_onerror='window.harmed=true'>"


@contextmanager
def process(*command, log, cores=2):
    command = [str(word) for word in command]
    with log.open("w") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, env={"CT_CORES": str(cores)})
    try:
        yield running
    finally:
        stop(running)


def push_hostile(port):
    """Pushes one line of the hostile tenant, as Promtail would."""
    stream = {"stream": {"tenant": HOSTILE}, "values": [[str(time.time_ns()), "a line"]]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/loki/api/v1/push",
        json.dumps({"streams": [stream]}).encode(),
        {"Content-Type": "application/json"},
    )
    # The sink knows lines that loadgen wrote, and refuses others.
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)


@contextmanager
def running(directory, tenants):
    """Gives the URL of the admin address. All tenants have written by then; with few, they go on."""
    push, admin, upstream = free_port(), free_port(), free_port()
    (directory / "faults.yml").write_text(FAULTS)
    (directory / "tenantry.yml").write_text(f"""
listen: 127.0.0.1:{push}
listen_metrics_address: 127.0.0.1:{admin}
target: http://127.0.0.1:{upstream}/api/v1/push
target_loki: http://127.0.0.1:{upstream}/loki/api/v1/push
auth: {{egress: {{username: tenantry, password: secret-of-the-upstream}}}}
tenant: {{label_list: [tenant, __tenant__], id_rules: thanos}}
""")
    names = "payments:5,search:3,checkout:2,identity,ledger"
    with ExitStack() as stack:

        def start(name, *command):
            return stack.enter_context(process(*command, log=directory / f"{name}.log"))

        sink = [LOADGEN, "sink", "--listen", f"127.0.0.1:{upstream}", "--every", "0s"]
        start("sink", *sink, "--faults", directory / "faults.yml")
        start("tenantry", TENANTRY, "--config", directory / "tenantry.yml")
        until(lambda: listens(upstream) and listens(push) and listens(admin))
        push_hostile(push)
        send = [LOADGEN, "send", "--url", f"http://127.0.0.1:{push}/push", "--tenant-label", "tenant"]
        if tenants <= 5:
            load = ["--tenants", names, "--rate", "20", "--series", "500", "--duration", "10m"]
            start("send", *send, *load)
        else:
            load = ["--tenants", str(tenants), "--run-length", "1", "--series", "4000", "--requests", "16"]
            done = subprocess.run([str(word) for word in [*send, *load]], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
        yield f"http://127.0.0.1:{admin}"
