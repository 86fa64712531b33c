"""OpenTelemetry's SDK for JavaScript exports the same metrics, logs and traces twice: to the sink, and through the server."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import ROOT
from sink import REQUESTS
from tenants import TENANTS, check

SCRIPT = Path(__file__).parent / "javascript/send.mjs"
# Where .ci/otlp installed the SDK. A script finds packages beside itself only.
INSTALLED = ROOT / "target/otlp/javascript"


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("notation", ["proto", "json"])
def test_javascript(server, sink, notation, compression):
    script = shutil.copy(SCRIPT, INSTALLED)
    tenants = [f"{attribute}={tenant}" for tenant, attribute in TENANTS.items()]
    reference = f"http://127.0.0.1:{sink.port}"
    command = ["node", script, notation, compression, reference, server, *tenants]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert ran.returncode == 0, ran.stderr
    for path in REQUESTS:
        sent = sink.stored[path, None]
        assert sent and all(isinstance(message, dict) == (notation == "json") for message in sent)
        check(sink, path, sent)
