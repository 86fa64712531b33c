"""One tenant: what it sends, what becomes of it, and what it costs."""

import common
from common import columns, lines, number, row

TENANT = 'tenant=~"$tenant"'
DURATION = "cortex_tenant_timeseries_request_duration_milliseconds"


def board():
    board = common.new(
        "Tenantry / Tenant",
        "tenantry-tenant",
        "What tenants send, what becomes of it, and what it costs. It needs metrics_include_tenant: true.",
        "tenantry_build_info",
        common.choice(
            "tenant", "Tenant",
            'label_values({__name__=~"cortex_tenant_(timeseries|streams)_received", job=~"$job"}, tenant)',
            "The tenants' IDs.", all_value=".*",
        ),
    )
    row(board, "At a glance", *glance())
    row(board, "What it sends", *sent())
    row(board, "What becomes of it", *outcome())
    row(board, "What waits in the spool", *spool())
    row(board, "What it costs", *cost())
    row(board, "All tenants", ranking())
    return board


def per_tenant(metric, function="rate", by="tenant", more=""):
    return f"sum by ({by}) ({function}({metric}{{@, {TENANT}{more}}}[~]))"


def total(metric, more=""):
    return f"(sum(rate({metric}{{@, {TENANT}{more}}}[~])) or vector(0))"


def glance():
    stored, refused = "tenantry_ledger_stored_samples_total", "tenantry_ledger_refused_samples_total"
    return [
        number("Samples", "Samples received, per second.", "cps", total("tenantry_tenant_samples_total")),
        number("Log entries", "Log entries received, per second.", "cps", total("tenantry_tenant_entries_total")),
        number("Stored", "Samples and log entries that the upstream acknowledged.", "cps", total(stored)),
        number(
            "Refused",
            "Samples and log entries that were not stored. Senders repeat some of them.", "cps", total(refused),
            "green", (0.001, "orange"),
        ),
        number(
            "Lost by 4xx", "Samples that the upstream refused with a 4xx. Senders drop them.", "cps",
            total(refused, ', reason="rejected"'), "green", (0.001, "red"),
        ),
        number(
            "Unaccounted", "Samples that the ledger misses. It must be 0.", "none",
            f"sum(tenantry_ledger_tenant_unaccounted_samples{{@, {TENANT}}}) or vector(0)",
            "red", (0, "green"), (1, "red"),
        ),
    ]


def sent():
    return [
        lines(
            "Series", "Series received in Remote Write.", "cps",
            (per_tenant("cortex_tenant_timeseries_received"), "{{tenant}}"),
        ),
        lines(
            "Samples", "Samples and histograms received.", "cps",
            (per_tenant("tenantry_tenant_samples_total"), "{{tenant}}"),
        ),
        lines(
            "Logs", "Log entries received.", "cps",
            (per_tenant("tenantry_tenant_entries_total"), "{{tenant}}"),
        ),
    ]


def outcome():
    quantile = f"histogram_quantile({{}}, sum by (code, le) (rate({DURATION}_bucket{{{{@, {TENANT}}}}}[~])))"
    count = f"{DURATION}_count"
    return [
        lines(
            "Refused, by reason",
            "Samples not stored. rejected: 4xx, lost. limited: 429. failed: 5xx, no answer. overloaded: a limit.",
            "cps",
            (per_tenant("tenantry_ledger_refused_samples_total", by="tenant, reason"), "{{tenant}} {{reason}}"),
            stacked=True, width=12,
        ),
        lines(
            "Upstream requests, by status", "Answers to the tenants' metrics. `none`: there was no answer.", "reqps",
            (per_tenant(count, by="code"), "{{code}}"),
            (per_tenant("cortex_tenant_timeseries_request_errors", by=""), "none"),
            stacked=True, width=12,
        ),
        lines(
            "Upstream time, by status: p50", "Half of the answers came within this time.", "ms",
            (quantile.format(0.5), "{{code}}"),
        ),
        lines(
            "Upstream time, by status: p99", "99 of 100 answers came within this time.", "ms",
            (quantile.format(0.99), "{{code}}"),
        ),
        lines(
            "Upstream time for logs, by status: p99", "The same for Loki.", "ms",
            (quantile.format(0.99).replace("timeseries", "streams"), "{{code}}"),
        ),
    ]


def spool():
    """These have data only if spool.dir is set."""
    by, legend = "tenant, destination", "{{tenant}} {{destination}}"
    return [
        lines(
            "In the spool", "Bytes that are acknowledged, and that the upstream does not have yet.", "bytes",
            (f"sum by ({by}) (tenantry_spool_tenant_bytes{{@, {TENANT}}})", legend),
        ),
        lines(
            "Age of its oldest data", "How long the oldest data in the spool has waited.", "s",
            (f"time() - min by ({by}) (tenantry_spool_oldest_timestamp_seconds{{@, {TENANT}}})", legend),
        ),
        lines(
            "Samples into the spool and out of it",
            "rejected: the upstream refused them for good at the replay, and their senders do not have them.", "cps",
            (per_tenant("tenantry_ledger_spooled_samples_total", by=by), f"{legend} spooled"),
            (per_tenant("tenantry_spool_replayed_samples_total", by=by), f"{legend} replayed"),
            (per_tenant("tenantry_spool_rejected_samples_total", by=by), f"{legend} rejected"),
        ),
    ]


def cost():
    cpu = "tenantry_tenant_cpu_seconds_total"
    by, legend = "tenant, destination", "{{tenant}} {{destination}}"
    return [
        lines(
            "Samples stored", "To charge by volume.", "cps",
            (per_tenant("tenantry_ledger_stored_samples_total", by=by), legend),
        ),
        lines(
            "Bytes sent upstream", "To charge by traffic: compressed.", "Bps",
            (per_tenant("tenantry_tenant_upstream_bytes_total", by=by), legend),
        ),
        lines(
            "Share of CPU", "To charge by work: an estimate of the tenant's share of the cores' time.", "percentunit",
            (
                f"{per_tenant(cpu)} / on () group_left () sum(rate({cpu}{{@}}[~]))",
                "{{tenant}}",
            ),
        ),
    ]


def ranking():
    link = {
        "title": "This tenant alone",
        "url": "/d/tenantry-tenant?var-tenant=${__value.raw}&${datasource:queryparam}&${job:queryparam}"
        "&${__url_time_range}",
    }
    top = "topk(50, sum by (tenant) (increase(tenantry_ledger_stored_samples_total{@}[$__range])))"

    def over_range(metric, more="", of_all=""):
        return f"(sum by (tenant) (increase({metric}{{@{more}}}[$__range])) {of_all}) and on (tenant) {top}"

    refused, cpu = "tenantry_ledger_refused_samples_total", "tenantry_tenant_cpu_seconds_total"
    all_cpu = f"/ on () group_left () sum(increase({cpu}{{@}}[$__range]))"
    return columns(
        "Largest tenants", "The 50 tenants with the most samples stored in the dashboard's range, and what they cost.",
        {"tenant": "Tenant"},
        (top, "Stored", "short"),
        (over_range(refused), "Refused", "short"),
        (over_range(refused, ', reason="rejected"'), "Lost by 4xx", "short"),
        (over_range("tenantry_tenant_upstream_bytes_total"), "Bytes sent", "bytes"),
        (over_range(cpu), "CPU time", "s"),
        (over_range(cpu, of_all=all_cpu), "Share of CPU", "percentunit"),
        links={"Tenant": link},
    )
