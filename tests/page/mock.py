#!/usr/bin/env python3
"""The status page with an API that makes its numbers up, for work on the page alone.

    python3 tests/page/mock.py --tenants 10000 --port 9090

The numbers are the same for the same second since the start. Some tenants have names that are meant to do harm.
"""

import argparse
import base64
import hashlib
import json
import math
import random
import re
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

ADMIN = Path(__file__).parents[2] / "src/admin"

# In this order; the last one starts the page.
SCRIPTS = "format dom api table overview tenants tenant forms app".split()

HOSTILE = [
    "<script>window.harmed = true</script>",
    "<img src=x onerror='window.harmed = true'>\"><b>bold",
    "\u202egnp.exe\u2066 hidden\u2069",
    "line\nfeed\ttab\x00zero\x1b[31mred\x7f\u0085",
    "zero\u200bwidth\ufeff and \u2800blank",
    "a/b?c=d&e#f%2e%00",
    "javascript:window.harmed=true",
    "x" * 10240,
    "שלום/مرحبا",
    "Z̴̡̛͇̦͈̲̺͗̈̅͌̚a̷̢̛̛͖̱̯̣͒̈́l̸̨̬̯̓̉̏͝g̵̱͎̿̚ó̷̫̬̬̈́",
    "  spaces  ",
    "{{constructor}}${window.harmed = true}",
]

TEAMS = "payments search checkout identity ledger catalog shipping ads mail media risk support".split()

REASONS = [
    "per-user series limit of 150000 exceeded (err-mimir-max-series-per-user)",
    "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 10000 items/s",
    "<img src=x onerror='window.harmed = true'> \u202eunexpected end of JSON input\n",
    "received a sample whose timestamp is too far in the past (err-mimir-sample-timestamp-too-old)",
]


def document():
    """The page as the server joins it, and its Content-Security-Policy."""
    page = ADMIN / "page"
    style = (page / "style.css").read_text()
    script = "".join((page / f"{name}.js").read_text() for name in SCRIPTS)
    html = (page / "index.html").read_text()
    assert html.count("<style></style>") == html.count("<script></script>") == 1

    def digest(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    policy = (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = html.replace("<style></style>", f"<style>{style}</style>")
    return html.replace("<script></script>", f"<script>{script}</script>"), policy


def stamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def names(count):
    known = [team for team in TEAMS[: max(0, min(count, 5) if count <= 5 else len(TEAMS))]]
    if count > 5:
        known += HOSTILE
    known += [f"{TEAMS[n % len(TEAMS)]}-{n:05}" for n in range(len(known), count)]
    return known[:count]


class World:
    """Tenants and their numbers. What varies, varies with the time alone."""

    def __init__(self, tenants):
        self.started = time.time() - 274_000
        # Switches that a test turns.
        self.state = {"delay": 0.0, "status": None, "well": False}
        chance = random.Random(1)
        self.tenants = [self.tenant(name, rank, chance) for rank, name in enumerate(names(tenants))]

    def tenant(self, name, rank, chance):
        rate = 180_000 / (rank + 1) ** 0.8 * chance.uniform(0.7, 1.3)
        failing = rank % 9 == 3
        return {
            "tenant": name, "destination": "logs" if rank % 7 == 6 else "metrics", "rank": rank,
            "rate": rate if rank % 11 != 10 else 0, "failing": failing, "slow": rank % 40 == 3,
            "phase": chance.uniform(0, 6.3), "swing": chance.uniform(0.02, 0.35),
        }

    def rate(self, tenant, second):
        noise = 0.05 * math.sin(second * 1.7 + tenant["phase"] * 9)
        return tenant["rate"] * (1 + tenant["swing"] * math.sin(second / 9 + tenant["phase"]) + noise)

    def error(self, tenant, now, nth=0):
        rank = tenant["rank"]
        no_answer = (rank + nth) % 4 == 2
        return {
            "at": stamp(now - 3.2 - 41 * nth), "request_id": f"{rank:06x}-{nth:04x}-5d1f",
            "status": None if no_answer else (429, 400, 503)[(rank + nth) % 3],
            "reason": "the connection was reset before the answer" if no_answer else REASONS[(rank // 9 + nth) % 4],
            "sender": f"10.1.{rank % 250}.{nth + 7}:4{rank % 1000:04}",
            "upstream": "10.9.0.3:9009" if nth != 2 else None,
        }

    def row(self, tenant, now):
        rate, failing = self.rate(tenant, now), tenant["failing"] and not self.state["well"]
        samples = int(tenant["rate"] * (now - self.started))
        waiting = 12 if tenant["slow"] else 3 if failing else 0
        return {
            "tenant": tenant["tenant"], "destination": tenant["destination"],
            "rates": {
                "samples": round(rate, 3), "series": round(rate, 3), "bytes": round(rate * 11.7, 1),
                "requests": round(rate / 900, 3), "errors": round(rate / 40_000, 3) if failing else 0,
            },
            "totals": {
                "samples": samples, "series": samples, "bytes": int(samples * 11.7), "requests": samples // 900,
                "errors": samples // 40_000 if failing else 0, "merged_fragments": samples // 2200,
            },
            "waiting_fragments": waiting, "oldest_waiting_seconds": 4.75 if tenant["slow"] else waiting * 0.11,
            "in_flight_samples": int(rate / 50), "unaccounted_samples": 0, "slow": tenant["slow"],
            "cpu_share": round(rate / 2_000_000, 4), "last_seen_at": stamp(now - 0.4),
            "last_error": self.error(tenant, now) if failing else None,
            "history": [round(self.rate(tenant, now - 2 * (29 - n)), 2) for n in range(30)],
        }

    def page(self, query):
        now = time.time()
        sort, order = query.get("sort", "samples"), query.get("order", "desc")
        q, destination = query.get("q", "").lower(), query.get("destination")
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 50))
        matched = [t for t in self.tenants if q in t["tenant"].lower() and destination in (None, t["destination"])]
        keys = {
            "tenant": lambda t: t["tenant"], "errors": lambda t: t["rate"] if t["failing"] else 0,
            "waiting": lambda t: (t["slow"], t["failing"]), "oldest": lambda t: (t["slow"], t["failing"]),
        }
        matched.sort(key=keys.get(sort, lambda t: self.rate(t, now)), reverse=order == "desc")
        rows = [self.row(tenant, now) for tenant in matched[offset : offset + limit]]
        return {"total": len(self.tenants), "matched": len(matched), "offset": offset, "limit": limit, "tenants": rows}

    def ledger(self, received, failing):
        refused = {"limited": received // 900, "rejected": received // 5000, "overloaded": received // 40_000}
        refused = {reason: number for reason, number in refused.items() if number and failing}
        flight = min(2410, received)
        stored = received - sum(refused.values()) - flight
        return {"received": received, "stored": stored, "refused": refused, "in_flight": flight, "unaccounted": 0, "repeated": 0, "spooled": 0}

    def detail(self, name, query):
        destination = query.get("destination", "metrics")
        for tenant in self.tenants:
            if tenant["tenant"] == name and tenant["destination"] == destination:
                break
        else:
            return None
        now, rank = time.time(), tenant["rank"]
        row = self.row(tenant, now)
        errors = [self.error(tenant, now, nth) for nth in range(8)] if row["last_error"] else []
        rules = [
            ("label", "the label's value is the tenant"),
            ("map", 'rule 3 of tenant.map: regex: "team-(.*)", tenant: "$1"'),
            ("grant", "the access rule of the sender names the tenant"),
        ]
        kind, detail = rules[rank % 3]
        return row | {
            "errors": errors, "rule": {"kind": kind, "detail": detail} if rank % 5 else None,
            "senders": [{"sender": f"10.1.{rank % 250}.{n}", "last_seen_at": stamp(now - n)} for n in range(1, 4)],
            "upstream": "main", "target": "http://mimir-distributor:8080/api/v1/push",
            "header": {"name": "X-Scope-OrgID", "value": name},
            "sizes": [{"address": "10.9.0.3:9009", "bytes_max": 1 << 20}] if row["last_error"] else [],
            "limits": {"connections_max": 32, "parts_max": 256, "bytes_max": 268435456},
            "ledger": self.ledger(row["totals"]["samples"], bool(errors)),
        }

    def status(self, query):
        now, well = time.time(), self.state["well"]
        shape = [1 + 0.12 * math.sin((now - 2 * (59 - n)) / 11) + 0.03 * math.sin(now - n * 3) for n in range(60)]
        base = sum(t["rate"] for t in self.tenants)
        received = int(base * (now - self.started))
        rates = {
            "requests": base / 2000, "series": base, "samples": base * shape[-1], "inflated_bytes": base * 96.0,
            "upstream_requests": base / 900, "upstream_bytes": base * 11.7, "errors": 0 if well else 3.4,
        }
        return {
            "version": "0.3.0", "commit": "b37130d", "driver": "io_uring", "started_at": stamp(self.started),
            "now": stamp(now), "uptime_seconds": round(now - self.started, 3), "shutting_down": False,
            "requests_in_flight": 37, "requests_in_flight_max": 512,
            "bytes_in_flight": 98_403_112, "bytes_in_flight_max": 536_870_912,
            "rates": rates,
            "totals": {name: int(rate * 274_000) for name, rate in rates.items()}
            | {"merges": 81_500_112, "merged_fragments": 301_000_871, "rejections": 0 if well else 4711},
            "history": {
                "step_seconds": 2, "samples": [round(base * s, 1) for s in shape],
                "upstream_requests": [round(base / 900 * s, 2) for s in shape],
                "errors": [0 if well or n % 17 > 5 else round(3.4 * s, 2) for n, s in enumerate(shape)],
            },
            "cores": [
                {
                    "core": core, "cpu_percent": round(41 + 9 * math.sin(now / 7 + core), 1),
                    "cpu_seconds": 110_000.5 + core, "connections": 61 - core, "requests_total": 88_123_456 + core,
                    "lanes": len(self.tenants) // 4, "waiting_fragments": 0 if well else 5 * (core == 1),
                    "upstream_requests_total": 140_224_311, "merges_total": 20_375_028,
                    "longest_stall_seconds": 0.0031 if core != 2 or well else 0.142,
                }
                for core in range(4)
            ],
            "slow": {
                "tenants": 0 if well else max(1, len(self.tenants) // 40), "refused_total": 1204, "cut_total": 88,
                "share_percent": 25,
            },
            "tenants": len(self.tenants),
            "reload": {
                "succeeded_total": 4, "failed_total": 1, "last_success_at": stamp(now - 3700),
                "last_succeeded": True, "waiting_for_restart": [],
            },
            "ledger": self.ledger(received, not well), "log_lines_dropped_total": 0,
        }

    def upstreams(self, query):
        now = time.time()

        def address(n):
            rests = n == 3 and not self.state["well"]
            return {
                "address": f"10.9.0.{n}:9009", "state": "backoff" if rests else "unused" if n == 5 else "up",
                "backoff_seconds_left": 3.2 if rests else 0, "failures_in_a_row": 6 if rests else 0,
                "connections_in_use": 0 if rests else 7 + n, "connections_idle": 0 if rests else 11,
                "usual_seconds": None if n == 5 else 0.0042 + n / 1000,
                "last_answer_at": None if n == 5 else stamp(now - (41 if rests else 0.1)),
            }

        def upstream(name, destination, target, addresses):
            return {
                "upstream": name, "destination": destination, "target": target,
                "addresses": [address(n) for n in addresses], "connections_open": 84, "connections_idle": 44,
                "in_backoff": 0 if self.state["well"] else int(3 in addresses), "lanes": len(self.tenants),
                "waiting_fragments": 5, "slow_tenants": 0, "receipts": 12,
            }

        return {
            "upstreams": [
                upstream("main", "metrics", "http://mimir-distributor:8080/api/v1/push", [1, 2, 3, 4]),
                upstream("main", "logs", "http://loki-distributor:3100/loki/api/v1/push", [5, 6]),
            ]
        }

    def config(self, query):
        settings = {
            "listen": "0.0.0.0:8080", "listen_metrics_address": "0.0.0.0:9090",
            "target": "http://mimir-distributor:8080/api/v1/push", "auth.egress.username": "tenantry",
            "auth.egress.password": "***", "timeout": "10s", "concurrency": "512", "tenant.label": "__tenant__",
            "tenant.header": "X-Scope-OrgID", "tenant.map": "<b>hostile</b>\n- second line", "merge.inflight_max": "1",
            "limits.in_flight_bytes_max": "512Mi", "limits.slow_share_percent": "25",
        }
        return {"settings": [{"key": key, "value": value} for key, value in settings.items()]}

    def explain(self, query):
        series = query.get("series", "")
        found = re.search(r'(__tenant__|namespace)\s*=\s*"((?:[^"\\]|\\.)*)"', series)
        target = "http://mimir-distributor:8080/api/v1/push"
        answer = {
            "decision": "missing", "tenant": None, "label": None, "label_value": None, "rule": None,
            "reason": "none of the labels __tenant__, namespace is there, and tenant.default is empty",
            "upstream": "main", "target": target, "header": None, "label_removed": False,
        }
        if found:
            answer |= {
                "decision": "tenant", "tenant": found[2], "label": found[1], "label_value": found[2],
                "rule": {"kind": "label", "detail": "the label's value is the tenant"}, "reason": None,
                "header": {"name": "X-Scope-OrgID", "value": found[2]}, "label_removed": True,
            }
        return answer

    def tap(self):
        event = {
            "at": stamp(time.time()), "request_id": "000001-0001-5d1f", "sender": "10.1.0.7:40007",
            "series": '{__name__="up",namespace="payments"}', "tenant": "payments",
            "rule": {"kind": "label", "detail": "the label's value is the tenant"}, "merged_with": 3,
            "address": "10.9.0.3:9009", "status": 200, "seconds": 0.0041, "result": "stored", "reason": None,
        }
        return [event, {"end": "seconds", "events": 1, "dropped": 0}]

    def answer(self, path, query):
        """Status and body for a path of the API."""
        wrong = mistake(path, query)
        if wrong:
            return 400, {"error": wrong}
        if path.startswith("tenants/"):
            found = self.detail(unquote(path.removeprefix("tenants/")), query)
            return (200, found) if found else (404, {"error": "no such tenant"})
        pages = {
            "status": self.status, "tenants": self.page, "upstreams": self.upstreams, "config": self.config,
            "explain": self.explain,
        }
        if path == "tap":
            return 200, self.tap()
        if path == "openapi.json":
            return 200, json.loads((ADMIN / "openapi.json").read_text())
        if path not in pages:
            return 404, {"error": "no such page of the API"}
        try:
            return 200, pages[path](query)
        except ValueError as error:
            return 400, {"error": str(error)}


SORTS = "tenant samples bytes requests errors waiting oldest merges in_flight".split()
ALLOWED = {
    "tenants": {
        "sort": SORTS, "order": ["asc", "desc"], "destination": ["metrics", "logs"],
        "offset": range(1 << 32), "limit": range(1, 501),
    },
    "explain": {"destination": ["metrics", "logs"]},
    "tap": {"seconds": range(1, 61), "limit": range(1, 10_001)},
}


def mistake(path, query):
    rules = ALLOWED["explain"] if path.startswith("tenants/") else ALLOWED.get(path, {})
    for name, allowed in rules.items():
        value = query.get(name)
        if value is None:
            continue
        if isinstance(allowed, range):
            good = re.fullmatch("[0-9]{1,10}", value) and int(value) in allowed
        else:
            good = value in allowed
        if not good:
            return f"{name}: not one of the values allowed"
    for page, name in [("explain", "series"), ("tap", "match")]:
        if path == page and not re.fullmatch(r"(?s)\s*\w*\s*\{.*\}\s*", query.get(name, "")):
            return f"{name}: expected a label at column 1: {query.get(name, '')[:60]}"
    return None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        world, url = self.server.world, urlsplit(self.path)
        time.sleep(world.state["delay"])
        policy = "default-src 'none'; frame-ancestors 'none'"
        if url.path == "/":
            text, policy = document()
            status, media = 200, "text/html; charset=utf-8"
        elif url.path.startswith("/api/v1/"):
            query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
            status, body = world.answer(url.path.removeprefix("/api/v1/"), query)
            if world.state["status"]:
                status, body = world.state["status"], {"error": "as the test wants"}
            text, media = json.dumps(body), "application/json"
            if url.path.endswith("/tap") and status == 200:
                text, media = "".join(json.dumps(line) + "\n" for line in body), "application/x-ndjson"
        else:
            status, text, media = 404, "no such page\n", "text/plain; charset=utf-8"
        body = text.encode(errors="surrogatepass")
        self.send_response(status)
        for name, value in [
            ("Content-Type", media), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", policy), ("Connection", "close"),
        ]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self):
        self.send_response(405)
        for name, value in [("Allow", "GET, HEAD"), ("Content-Length", "0"), ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()

    do_HEAD = do_GET
    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_QUERY = refuse

    def log_message(self, *_):
        pass


class Mock:
    """A server on a thread of its own."""

    def __init__(self, tenants, port=0):
        self.world = World(tenants)
        self.port = port
        self.start()

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.world = self.world
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--port", type=int, default=9090)
    options = parser.parse_args()
    mock = Mock(options.tenants, options.port)
    print(mock.url)
    threading.Event().wait()
