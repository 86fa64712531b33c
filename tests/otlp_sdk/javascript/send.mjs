// Metrics, logs and traces of several tenants, exported as the SDK does it: first to the address that keeps what comes
// as it was sent, then through the server.
//
//   node send.mjs proto|json none|gzip REFERENCE SERVER [ATTRIBUTE=TENANT …]
import { createRequire } from 'node:module';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { InMemoryLogRecordExporter, LoggerProvider, SimpleLogRecordProcessor } from '@opentelemetry/sdk-logs';
import {
  AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';

const [notation, compression, reference, server, ...tenants] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const kind = notation === 'json' ? 'http' : 'proto';
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${kind}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${kind}`);
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${kind}`);

// Batches as processors and readers hand them to exporters: all spans at once, all logs at once, metrics by provider.
const spans = [];
const logs = [];
const metrics = [];
for (const pair of tenants) {
  const [attribute, tenant] = pair.split('=');
  const resource = resourceFromAttributes({ 'service.name': `shop-${tenant}`, [attribute]: tenant, replicas: 3 });
  spans.push(...await makeSpans(resource, tenant));
  logs.push(...await makeLogs(resource, tenant));
  metrics.push(...await makeMetrics(resource, tenant));
}
for (const base of [reference, server]) {
  await send(OTLPTraceExporter, base, 'traces', spans);
  await send(OTLPLogExporter, base, 'logs', logs);
  for (const batch of metrics) await send(OTLPMetricExporter, base, 'metrics', batch);
}

async function makeSpans(resource, tenant) {
  const memory = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ resource, spanProcessors: [new SimpleSpanProcessor(memory)] });
  const tracer = provider.getTracer('checkout', '1.2');
  const order = tracer.startSpan('order', { attributes: { items: 3, paid: true, note: 'a "quoted" \\ é', of: ['x', 'y'] } });
  order.addEvent('packed', { weight: 1.5 });
  tracer.startSpan(`ship-${tenant}`, { links: [{ context: order.spanContext(), attributes: { why: 'order' } }] }).end();
  order.recordException(new Error('out of stock'));
  order.end();
  await provider.forceFlush();
  return memory.getFinishedSpans();
}

async function makeLogs(resource, tenant) {
  const memory = new InMemoryLogRecordExporter();
  const provider = new LoggerProvider({ resource, processors: [new SimpleLogRecordProcessor({ exporter: memory })] });
  const logger = provider.getLogger('shop');
  logger.emit({ body: `no ${tenant} left`, severityText: 'WARN', attributes: { shelf: 4 } });
  logger.emit({ body: { order: 7, of: [tenant, null] }, attributes: { bytes: new Uint8Array([0, 255]) } });
  await provider.forceFlush();
  return memory.getFinishedLogRecords();
}

async function makeMetrics(resource, tenant) {
  const memory = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter: memory, exportIntervalMillis: 60_000 });
  const provider = new MeterProvider({ resource, readers: [reader] });
  const meter = provider.getMeter('checkout', '1.2');
  const orders = meter.createCounter('orders', { unit: '1', description: 'Orders.' });
  orders.add(7, { country: 'it' });
  orders.add(2, { country: 'jp' });
  const seconds = meter.createHistogram('seconds', { unit: 's' });
  for (const value of [0.1, 3, 70]) seconds.record(value, { 'tenant.of': tenant });
  meter.createGauge('depth').record(-2.5);
  await provider.forceFlush();
  const batches = memory.getMetrics();
  await provider.shutdown();
  return batches;
}

async function send(Exporter, base, signal, items) {
  const exporter = new Exporter({ url: `${base}/v1/${signal}`, compression });
  const result = await new Promise((resolve) => { exporter.export(items, resolve); });
  if (result.code !== 0) throw result.error;
  await exporter.shutdown();
}
