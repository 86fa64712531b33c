"""A collector, Rotel, stands between an SDK and the server: it decodes what it gets, gathers it, and encodes it anew."""

import subprocess
from pathlib import Path

import pytest
import rotel
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from programs import free_port, listens, stop, until
from tenants import check
from test_sdk import make_logs, make_metrics, make_spans

AGENT = Path(rotel.__file__).parent / "rotel-agent"


@pytest.fixture
def collector(server, tmp_path):
    """The URL of a collector that sends to the server."""
    port = free_port()
    options = {
        "pid-file": tmp_path / "pid",
        "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "otlp-http-endpoint": f"127.0.0.1:{port}",
        "otlp-exporter-endpoint": server,
        "otlp-exporter-protocol": "http",
        "batch-timeout": "200ms",
    }
    command = [AGENT, "start", *(f"--{name}={value}" for name, value in options.items())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: listens(port))
    yield f"http://127.0.0.1:{port}"
    stop(process)


def arrives(sink, path, sent):
    """The collector answers before it sends."""
    until(lambda: sum(map(len, sink.stored.values())) >= len(sent))
    check(sink, path, sent)


def test_spans(collector, sink):
    spans = make_spans()
    assert OTLPSpanExporter(f"{collector}/v1/traces").export(spans).name == "SUCCESS"
    arrives(sink, "/v1/traces", encode_spans(spans).resource_spans)


def test_metrics(collector, sink):
    sent = []
    for data in make_metrics():
        assert OTLPMetricExporter(f"{collector}/v1/metrics").export(data).name == "SUCCESS"
        sent += encode_metrics(data).resource_metrics
    arrives(sink, "/v1/metrics", sent)


def test_logs(collector, sink):
    logs = make_logs()
    assert OTLPLogExporter(f"{collector}/v1/logs").export(logs).name == "SUCCESS"
    arrives(sink, "/v1/logs", encode_logs(logs).resource_logs)
