"""An upstream that decodes with OpenTelemetry's own protobuf classes, and keeps what comes by tenant."""

import gzip
import json
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
                body = self.read_body()
                tenant = self.headers["X-Scope-OrgID"]
                status = sink.status.get(tenant, 200)
                if status == 200:
                    sink.store(self.path, tenant, body, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def read_body(self):
                if length := self.headers["Content-Length"]:
                    return self.rfile.read(int(length))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def store(self, path, tenant, body, headers):
        """What comes without a tenant was sent past the server."""
        if headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        request_class, field = REQUESTS[path]
        if headers["Content-Type"] == "application/json":
            [(_, resources)] = json.loads(body).items()
        else:
            resources = getattr(request_class.FromString(body), field)
        with self.lock:
            self.stored[path, tenant].extend(resources)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
