"""A server between the SDK and a sink."""

import subprocess

import pytest
from programs import TENANTRY, free_port, listens, stop, until
from sink import Sink


@pytest.fixture
def sink():
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def server(sink, tmp_path):
    """The URL of a server that finds the tenant in the resource's attribute `tenant`."""
    port = free_port()
    at = f"http://127.0.0.1:{sink.port}/v1"
    config = tmp_path / "tenantry.yml"
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f"listen_metrics_address: 127.0.0.1:{free_port()}\n"
        f"target_otlp_metrics: {at}/metrics\ntarget_otlp_logs: {at}/logs\ntarget_otlp_traces: {at}/traces\n"
        "tenant: {attributes: [tenant, k8s.namespace.name]}\n"
    )
    process = subprocess.Popen([TENANTRY, "--config", config])
    until(lambda: listens(port))
    yield f"http://127.0.0.1:{port}"
    stop(process)
