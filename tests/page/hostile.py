"""The real server between senders and an upstream that both mean harm."""

import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from programs import TENANTRY, free_port, listens, until
from server import process

# IDs that pass the loosest rules that there are: at most 256 bytes of visible ASCII without slashes.
NAMES = [
    "<script>window.harmed=true<script>",
    "<img_src=x_onerror='window.harmed=true'>\"><b>bold",
    "javascript:window.harmed=true",
    "{{constructor}}${window.harmed=true}",
    "a?b=c&d#e%2f%00+..;",
    "__proto__",
    "%2e%2e",
    "'\"`--!>",
    "&lt;b&gt;&amp;",
    "x" * 256,
    "]]><!--",
]

# What the upstream answers: markup, controls, directions, bytes that are not UTF-8, and more than anyone reads.
TEXTS = [
    b"<script>window.harmed = true</script>",
    b"\x1b[31mred\x07 \x00zero \x7f \xc2\x85 first\r\n\tsecond line",
    "\u202egnp.exe\u2066 hidden\u2069 zero\u200bwidth\ufeff \u2800blank \u2028".encode(),
    b"\xff\xfe\xc0\xaf\xed\xa0\x80 not UTF-8",
    b"x" * 10_240,
    b"<b>" * 3_413 + b"<img src=x onerror='window.harmed = true'>",
    b"",
    "Z\u0334\u0321\u031b\u0347a\u0337\u0322\u0321l\u0338 ".encode() * 200,
    "שלום/مرحبا <img src=x onerror='window.harmed = true'>".encode(),
    b'{"error": "\\u202e</script><script>window.harmed = true</script>"}',
    ("\u202e" * 3_000).encode(),
]

STATUSES = [400, 429, 500, 503]

# The tenant that a sender's header and its series make together.
SOURCE = "<b>source"
BOTH = f"{SOURCE}-both"

# Labels of series, besides the tenant.
NOTES = [
    "<img src=x onerror='window.harmed = true'>", "\u202egnp.exe\u2066 \x00\x1b[31m\n\"quoted\\", "y" * 10_240,
]

HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "<script>window.harmed = true</script>",
    "X-Request-ID": "<img src=x onerror='window.harmed = true'>",
    "X-Forwarded-For": "\"><b>bold",
    "Traceparent": "00-<script>",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        tenant = self.headers["X-Scope-OrgID"]
        place = NAMES.index(tenant) if tenant in NAMES else 0
        body = TEXTS[place]
        self.send_response(STATUSES[place % len(STATUSES)])
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


def push(port, tenant, note, headers=HEADERS):
    """Pushes a line of a tenant's log, and gives the answer's status."""
    stream = {"stream": {"tenant": tenant, "note": note}, "values": [[str(time.time_ns()), "a line"]]}
    body = json.dumps({"streams": [stream]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/loki/api/v1/push", body, headers)
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def push_all(port):
    statuses = [push(port, name, note) for name, note in zip(NAMES, itertools.cycle(NOTES))]
    statuses.append(push(port, "both", "source", HEADERS | {"X-Scope-OrgID": SOURCE}))
    assert all(status >= 400 for status in statuses), statuses


@contextmanager
def running(directory):
    """Gives the URL of the admin address and the port for pushes. All tenants have written, and were refused."""
    ingest, admin, upstream = free_port(), free_port(), Upstream()
    target = f"http://127.0.0.1:{upstream.server_address[1]}"
    (directory / "tenantry.yml").write_text(f"""
listen: 127.0.0.1:{ingest}
listen_metrics_address: 127.0.0.1:{admin}
target: {target}/api/v1/push
target_loki: {target}/loki/api/v1/push
tenant: {{label: tenant, id_rules: thanos, prefix_prefer_source: true}}
metrics_include_tenant: true
""")
    with ExitStack() as stack:
        stack.callback(upstream.server_close)
        stack.callback(upstream.shutdown)
        config = directory / "tenantry.yml"
        stack.enter_context(process(TENANTRY, "--config", config, log=directory / "tenantry.log"))
        until(lambda: listens(ingest) and listens(admin))
        push_all(ingest)
        yield SimpleNamespace(url=f"http://127.0.0.1:{admin}", push=ingest)
