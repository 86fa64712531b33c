"""For a move from cortex-tenant: only its own metric names, so it shows both programs, side by side if need be."""

import common
from common import columns, heat, lines, number, row

KINDS = [("timeseries", "Metrics"), ("streams", "Logs")]


def board():
    board = common.new(
        "cortex-tenant",
        "cortex-tenant",
        "Works with cortex-tenant and with Tenantry: it uses only metric names that both have.",
        "cortex_tenant_timeseries_batches_received",
        common.choice(
            "tenant", "Tenant", 'label_values(cortex_tenant_timeseries_received{job=~"$job"}, tenant)',
            "The tenants' IDs, if metrics_include_tenant is on.", all_value=".*",
        ),
    )
    row(board, "At a glance", *glance())
    for kind, title in KINDS:
        row(board, title, *of_kind(kind))
    row(board, "Tenants", ranking())
    return board


def rate(metric, by="job", selection=', tenant=~"$tenant"'):
    return f"sum by ({by}) (rate(cortex_tenant_{metric}{{@{selection}}}[~]))"


def glance():
    batches = rate("timeseries_batches_received", by="", selection="")
    requests, errors = rate("timeseries_requests", by=""), rate("timeseries_request_errors", by="")
    return [
        number("Batches", "Remote Write requests received.", "reqps", batches, width=6),
        number("Series", "Series received.", "cps", rate("timeseries_received", ""), width=6),
        number("Upstream requests", "Requests to the upstream.", "reqps", requests, width=6),
        number(
            "Without an answer",
            "The share of upstream requests without an answer.", "percentunit", f"{errors} / {requests}",
            "green", (0.01, "orange"), (0.05, "red"), width=6, decimals=2,
        ),
    ]


def of_kind(kind):
    name = "Series" if kind == "timeseries" else "Streams"
    duration = f"cortex_tenant_{kind}_request_duration_milliseconds"
    quantile = f'histogram_quantile({{}}, sum by (job, le) (rate({duration}_bucket{{{{@, tenant=~"$tenant"}}}}[~])))'
    size = f"cortex_tenant_{kind}_batches_received_bytes"
    return [
        lines(
            "Batches received", "Requests of senders.", "reqps",
            (rate(f"{kind}_batches_received", selection=""), "{{job}}"),
        ),
        lines(f"{name} received", "By tenant.", "cps", (rate(f"{kind}_received", "job, tenant"), "{{job}} {{tenant}}")),
        lines(
            "Size of batches", "Bytes of a request as it arrives.", "bytes",
            (f"histogram_quantile(0.5, sum by (job, le) (rate({size}_bucket{{@}}[~])))", "{{job}} p50"),
            (f"histogram_quantile(0.99, sum by (job, le) (rate({size}_bucket{{@}}[~])))", "{{job}} p99"),
        ),
        lines(
            "Upstream requests", "Tenantry makes fewer than cortex-tenant: it merges.", "reqps",
            (rate(f"{kind}_requests"), "{{job}}"),
            (rate(f"{kind}_request_errors"), "{{job}} without an answer"),
        ),
        lines(
            "Upstream answers, by status", "4xx: the data is lost. 5xx: senders try again.", "reqps",
            (rate(f"{kind}_request_duration_milliseconds_count", "job, code"), "{{job}} {{code}}"), stacked=True,
        ),
        lines(
            "Upstream time", "From sending to the answer.", "ms",
            *((quantile.format(q), f"{{{{job}}}} {text}") for q, text in ((0.5, "p50"), (0.99, "p99"))),
        ),
        heat(
            "Upstream time, all requests", "The darker a cell, the more requests took that long.",
            f'sum by (le) (increase({duration}_bucket{{@, tenant=~"$tenant"}}[~]))', unit="ms", width=24,
        ),
    ]


def ranking():
    top = "topk(50, sum by (tenant) (increase(cortex_tenant_timeseries_received{@}[$__range])))"

    def over_range(metric):
        return f"sum by (tenant) (increase(cortex_tenant_{metric}{{@}}[$__range])) and on (tenant) {top}"

    return columns(
        "Largest tenants", "The 50 tenants with the most series in the dashboard's range.", {"tenant": "Tenant"},
        (top, "Series", "short"),
        (over_range("timeseries_requests"), "Upstream requests", "short"),
        (over_range("timeseries_request_errors"), "Without an answer", "short"),
        (over_range("streams_received"), "Log streams", "short"),
    )
