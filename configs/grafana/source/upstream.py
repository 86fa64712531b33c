"""The upstreams: how they answer, and what waits for them."""

import common
from common import MAIN, columns, lines, number, row

# Names of upstreams consist of letters, digits, `-`, `_` and `.`. The main one has the value `main|`, as a pattern that
# also matches the empty label.
UPSTREAM = 'upstream=~"${upstream:pipe}"'


def board():
    names = MAIN.replace("main", "main|").format('count by (upstream) (tenantry_lanes{job=~"$job"})')
    board = common.new(
        "Tenantry / Upstream",
        "tenantry-upstream",
        "Outcomes of upstream requests, addresses in backoff, connections and lanes, by upstream.",
        "tenantry_build_info",
        common.choice(
            "upstream", "Upstream", f"query_result({names})", "The upstreams; main is that of the main configuration.",
            regex='/upstream="(?<value>(?<text>[^"|]+)\\|?)"/', all_value=".*",
        ),
    )
    row(board, "All upstreams", *everything())
    row(board, "Answers", *answers())
    row(board, "Addresses and connections", *addresses())
    row(board, "What waits", *waits())
    return board


def gauge(metric, by="upstream"):
    return f"sum by ({by}) ({MAIN.format(f'{metric}{{@, {UPSTREAM}}}')})"


def everything():
    outcomes = "sum(rate(tenantry_upstream_outcomes_total{@}[~]))"

    def share(pattern):
        return f'sum(rate(tenantry_upstream_outcomes_total{{@, outcome=~"{pattern}"}}[~])) / {outcomes}'

    return [
        number("Requests", "Upstream requests that ended, per second.", "reqps", outcomes),
        number(
            "Failed", "The share of requests that failed. Senders repeat their data.", "percentunit",
            share("5xx|unreachable|timeout|expired"), "green", (0.01, "orange"), (0.05, "red"), decimals=2,
        ),
        number(
            "Refused", "The share of requests that got a 4xx. Senders drop their data.", "percentunit",
            share("4xx"), "green", (0.001, "orange"), (0.05, "red"), decimals=2,
        ),
        number(
            "Limited", "The share of requests that got a 429.", "percentunit",
            share("429"), "green", (0.01, "orange"), decimals=2,
        ),
        number(
            "Addresses in backoff", "Addresses that are passed over after failures, counted by each core.", "none",
            "sum(tenantry_upstream_addresses_in_backoff{@})", "green", (1, "red"),
        ),
        number(
            "Slow tenants", "Tenants whose upstream does not answer in time.", "none",
            "sum(tenantry_slow_tenants{@})", "green", (1, "orange"),
        ),
    ]


def answers():
    def times(kind, suffix):
        return f"rate(cortex_tenant_{kind}_request_duration_milliseconds_{suffix}{{@}}[~])"

    def quantile(value, kind):
        return f"histogram_quantile({value}, sum by (le) ({times(kind, 'bucket')}))"

    kinds = [("timeseries", "metrics"), ("streams", "logs")]
    times_of = [(quantile(q, kind), f"{name} p{100 * q:.0f}") for kind, name in kinds for q in (0.5, 0.99)]
    return [
        lines(
            "Outcomes", "How upstream requests ended. expired: no connection came free in time.", "reqps",
            ("sum by (outcome) (rate(tenantry_upstream_outcomes_total{@}[~]))", "{{outcome}}"),
            stacked=True, width=12,
        ),
        lines(
            "Answers by status", "The statuses of upstream answers.", "reqps",
            *((f"sum by (code) ({times(kind, 'count')})", f"{name} {{{{code}}}}") for kind, name in kinds),
            stacked=True, width=12,
        ),
        lines(
            "Time of upstream requests", "From sending to the answer.", "ms",
            *times_of, width=12,
        ),
        lines(
            "Error IDs", "The IDs in the texts of refusals, as Mimir and Loki give them.", "ops",
            ("topk(10, sum by (id) (rate(tenantry_upstream_error_ids_total{@}[~])))", "{{id}}"), width=12,
        ),
    ]


def addresses():
    opened, idle = gauge("tenantry_upstream_connections_open"), gauge("tenantry_upstream_connections_idle")
    return [
        lines(
            "Addresses in backoff",
            "Addresses that failed three times in a row. Each core counts, and a single address never is.", "short",
            (gauge("tenantry_upstream_addresses_in_backoff"), "{{upstream}}"),
        ),
        lines(
            "Backoffs", "Times that an address entered backoff, and retries on a new connection.", "ops",
            ("sum(rate(tenantry_upstream_backoffs_total{@}[~]))", "backoffs"),
            ("sum(rate(tenantry_upstream_retries_total{@}[~]))", "stale connections"),
        ),
        lines(
            "Connections in use", "Open connections without the idle ones.", "short",
            (f"{opened} - {idle}", "{{upstream}}"),
        ),
        lines(
            "Connections open", "Open connections, in use or idle.", "short",
            (opened, "{{upstream}}"),
        ),
        lines(
            "Connections opened and reused", "Few reused ones: the upstream closes connections.", "ops",
            ("sum(rate(tenantry_upstream_connections_opened_total{@}[~]))", "opened"),
            ("sum(rate(tenantry_upstream_connections_reused_total{@}[~]))", "reused"),
        ),
        lines(
            "Bytes sent", "Compressed bytes that were sent.", "Bps",
            ("sum(rate(tenantry_upstream_bytes_total{@}[~]))", "sent"),
        ),
    ]


def waits():
    return [
        lines(
            "Lanes", "Tenants with data on its way.", "short",
            (gauge("tenantry_lanes"), "{{upstream}}"),
        ),
        lines(
            "Parts that wait", "Parts of requests that wait in their tenants' lanes.", "short",
            (gauge("tenantry_lane_waiting_fragments"), "{{upstream}}"),
        ),
        lines(
            "Slow tenants", "Tenants whose upstream does not answer in time.", "short",
            (gauge("tenantry_slow_tenants"), "{{upstream}}"),
        ),
        columns(
            "Upstreams", "The state of each upstream now.", {"upstream": "Upstream"},
            (gauge("tenantry_lanes"), "Lanes", "short"),
            (gauge("tenantry_lane_waiting_fragments"), "Parts that wait", "short"),
            (gauge("tenantry_slow_tenants"), "Slow tenants", "short"),
            (gauge("tenantry_receipts"), "Receipts", "short"),
            (gauge("tenantry_upstream_connections_open"), "Connections", "short"),
            (gauge("tenantry_upstream_connections_idle"), "Idle", "short"),
            (gauge("tenantry_upstream_addresses_in_backoff"), "In backoff", "short"),
            height=8,
        ),
    ]
