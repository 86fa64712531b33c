"""An upstream that decodes with the SDK's own protobuf classes, and keeps what comes by tenant."""

import gzip
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "/v1/logs": (ExportLogsServiceRequest, "resource_logs"),
    "/v1/metrics": (ExportMetricsServiceRequest, "resource_metrics"),
    "/v1/traces": (ExportTraceServiceRequest, "resource_spans"),
}


class Sink:
    """Listens on a port of its own until it is closed."""

    def __init__(self):
        self.stored = defaultdict(list)
        self.status = {}
        self.lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                tenant = self.headers["X-Scope-OrgID"]
                status = sink.status.get(tenant, 200)
                if status == 200:
                    sink.store(self.path, tenant, body, self.headers.get("Content-Encoding"))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def store(self, path, tenant, body, coding):
        if coding == "gzip":
            body = gzip.decompress(body)
        request_class, field = REQUESTS[path]
        request = request_class.FromString(body)
        with self.lock:
            self.stored[path, tenant].extend(getattr(request, field))

    def close(self):
        self.server.shutdown()
        self.server.server_close()
