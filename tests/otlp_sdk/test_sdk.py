"""OpenTelemetry's SDK for Python, as its users run it, sends metrics, logs and traces of three tenants."""

import logging

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tenants import TENANTS, check


def resources():
    return {
        tenant: Resource.create({"service.name": f"shop-{tenant}", attribute: tenant, "replicas": 3})
        for tenant, attribute in TENANTS.items()
    }


def make_spans():
    spans = []
    for tenant, resource in resources().items():
        memory = InMemorySpanExporter()
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(SimpleSpanProcessor(memory))
        tracer = provider.get_tracer("checkout", "1.2")
        with tracer.start_as_current_span("order", attributes={"items": 3, "paid": True}) as span:
            span.add_event("packed", {"weight": 1.5})
            with tracer.start_as_current_span(f"ship-{tenant}"):
                pass
        spans += memory.get_finished_spans()
    return spans


def make_metrics():
    """What each tenant's provider has."""
    for tenant, resource in resources().items():
        reader = InMemoryMetricReader()
        meter = MeterProvider([reader], resource=resource).get_meter("checkout", "1.2")
        orders = meter.create_counter("orders", unit="1", description="Orders.")
        orders.add(7, {"country": "it"})
        orders.add(2, {"country": "jp"})
        seconds = meter.create_histogram("seconds", unit="s")
        for value in (0.1, 3.0, 70.0):
            seconds.record(value, {"tenant_of": tenant})
        yield reader.get_metrics_data()


def make_logs():
    logs = []
    for tenant, resource in resources().items():
        memory = InMemoryLogRecordExporter()
        provider = LoggerProvider(resource=resource)
        provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
        logger = logging.getLogger(f"shop.{tenant}")
        logger.addHandler(LoggingHandler(logger_provider=provider))
        logger.warning("no %s left", tenant, extra={"shelf": 4})
        logs += memory.get_finished_logs()
    return logs


CODINGS = [Compression.NoCompression, Compression.Gzip]


@pytest.mark.parametrize("coding", CODINGS)
def test_spans(server, sink, coding):
    spans = make_spans()
    result = OTLPSpanExporter(f"{server}/v1/traces", compression=coding).export(spans)
    assert result.name == "SUCCESS"
    check(sink, "/v1/traces", encode_spans(spans).resource_spans)


@pytest.mark.parametrize("coding", CODINGS)
def test_metrics(server, sink, coding):
    sent = []
    for data in make_metrics():
        result = OTLPMetricExporter(f"{server}/v1/metrics", compression=coding).export(data)
        assert result.name == "SUCCESS"
        sent += encode_metrics(data).resource_metrics
    check(sink, "/v1/metrics", sent)


@pytest.mark.parametrize("coding", CODINGS)
def test_logs(server, sink, coding):
    logs = make_logs()
    result = OTLPLogExporter(f"{server}/v1/logs", compression=coding).export(logs)
    assert result.name == "SUCCESS"
    check(sink, "/v1/logs", encode_logs(logs).resource_logs)


def test_what_fails_is_told(server, sink):
    """One tenant's upstream refuses for good: that is a partial success, and the others' spans are stored."""
    sink.status["green"] = 400
    result = OTLPSpanExporter(f"{server}/v1/traces").export(make_spans())
    assert result.name == "SUCCESS"
    assert {tenant for _, tenant in sink.stored} == {"red", "blue"}
