"""The first dashboard to open: is all well, and if not, where."""

import common
from common import heat, lines, number, row


def board():
    board = common.new(
        "Tenantry / Overview",
        "tenantry-overview",
        "Throughput, answers, upstream outcomes, limits, cores and the ledger of all Tenantry processes.",
        "tenantry_build_info",
    )
    row(board, "At a glance", *glance())
    row(board, "Senders", *senders(), *latencies_and_connections())
    row(board, "Upstream", *upstream())
    row(board, "Spool", *spool())
    row(board, "Ledger", *ledger())
    row(board, "Limits", *limits())
    row(board, "Cores and process", *process())
    row(board, "Configuration and certificates", *configuration())
    return board


def glance():
    replies = "sum(rate(tenantry_replies_total{@}[~]))"
    return [
        number(
            "Processes up", "Processes that answered the last scrape.", "none",
            "count(tenantry_build_info{@})", "red", (1, "green"),
        ),
        number(
            "Samples in", "Samples and log entries that senders push, per second.", "cps",
            "sum(rate(tenantry_samples_total{@}[~]))",
        ),
        number(
            "Answers 5xx", "The share of answers that let senders try again.", "percentunit",
            f'(sum(rate(tenantry_replies_total{{@, code=~"5.."}}[~])) or vector(0)) / {replies}',
            "green", (0.01, "orange"), (0.05, "red"), decimals=2,
        ),
        number(
            "Answers 4xx",
            "The share of answers after which senders drop the data (429: unless configured).", "percentunit",
            f'(sum(rate(tenantry_replies_total{{@, code=~"4.."}}[~])) or vector(0)) / {replies}',
            "green", (0.001, "orange"), (0.01, "red"), decimals=2,
        ),
        number(
            "p99 to answer", "The time from a request's head to its answer.", "s",
            "histogram_quantile(0.99, sum by (le) (rate(tenantry_request_duration_seconds_bucket{@}[~])))",
            "green", (1, "orange"), (5, "red"),
        ),
        number(
            "Unaccounted samples", "Samples that are neither stored, spooled, refused nor in flight. It must be 0.", "none",
            "sum(tenantry_unaccounted_samples{@})", "red", (0, "green"), (1, "red"),
        ),
    ]


def senders():
    return [
        lines(
            "Requests",
            "Push requests read, and those that went on as they came because they have one tenant.", "reqps",
            ("sum(rate(tenantry_requests_total{@}[~]))", "received"),
            ("sum(rate(tenantry_passthrough_requests_total{@}[~]))", "of one tenant"),
            ("sum(rate(tenantry_fragments_total{@}[~]))", "tenants' parts"),
        ),
        lines(
            "Series and samples",
            "What the requests hold. A log stream counts as a series, a log entry as a sample.", "cps",
            ("sum(rate(tenantry_series_total{@}[~]))", "series"),
            ("sum(rate(tenantry_samples_total{@}[~]))", "samples"),
        ),
        lines(
            "Bytes", "What requests inflate to, and what is sent to upstreams, compressed.", "Bps",
            ("sum(rate(tenantry_inflated_bytes_total{@}[~]))", "received, inflated"),
            ("sum(rate(tenantry_upstream_bytes_total{@}[~]))", "sent"),
        ),
        lines(
            "Answers by code", "2xx: stored. 4xx: senders drop the data. 5xx: senders try again.", "reqps",
            ("sum by (code) (rate(tenantry_replies_total{@}[~]))", "{{code}}"),
            stacked=True,
        ),
        lines(
            "Refused here, by reason",
            "Requests that Tenantry refused itself. configs/README.md explains the answers.", "reqps",
            ("sum by (reason) (rate(tenantry_rejections_total{@}[~])) > 0", "{{reason}}"),
            stacked=True,
        ),
        lines(
            "Series left out, by reason",
            "Series without a usable tenant, and series that the tenant map drops.", "cps",
            ("sum by (reason) (rate(tenantry_series_dropped_total{@}[~]))", "{{reason}}"),
            stacked=True,
        ),
    ]


def latencies_and_connections():
    quantile = "histogram_quantile({}, sum by (le) (rate(tenantry_request_duration_seconds_bucket{{@}}[~])))"
    return [
        lines(
            "Time to answer", "From a request's head to its answer, the upstream's time included.", "s",
            *((quantile.format(q), name) for q, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))),
            width=12,
        ),
        heat(
            "Time to answer, all requests",
            "Each column is an interval; the darker a cell, the more requests took that long.",
            "sum by (le) (increase(tenantry_request_duration_seconds_bucket{@}[~]))",
        ),
        lines(
            "Connections",
            "Connections of senders, open and new. Many new ones: senders or a proxy do not keep them.", "short",
            ("sum(tenantry_connections_open{@})", "open"),
            ("sum(rate(tenantry_connections_accepted_total{@}[~]))", "accepted per second"),
            ("sum(rate(tenantry_connections_timed_out_total{@}[~]))", "cut by a deadline, per second"),
        ),
        lines(
            "TLS handshakes", "Handshakes with senders by result.", "ops",
            ("sum by (result) (rate(tenantry_tls_handshakes_total{@}[~]))", "{{result}}"),
        ),
        lines(
            "Largest senders",
            "Samples by the address of their sender. __other__: beyond the number that is kept apart.", "cps",
            ("topk(10, sum by (sender) (rate(tenantry_sender_samples_total{@}[~])))", "{{sender}}"),
        ),
    ]


def upstream():
    quantile = "histogram_quantile({}, sum by (le) (rate(tenantry_lane_wait_seconds_bucket{{@}}[~])))"
    return [
        lines(
            "Upstream outcomes", "How upstream requests end. expired: no connection came free in time.", "reqps",
            ("sum by (outcome) (rate(tenantry_upstream_outcomes_total{@}[~]))", "{{outcome}}"),
            stacked=True,
        ),
        lines(
            "Merges",
            "Requests of several parts, and the parts in them. Merging grows when the upstream is slow.", "ops",
            ("sum(rate(tenantry_upstream_requests_total{@}[~]))", "upstream requests"),
            ("sum(rate(tenantry_merges_total{@}[~]))", "merged requests"),
            ("sum(rate(tenantry_merged_fragments_total{@}[~]))", "parts in them"),
        ),
        lines(
            "Wait before sending", "From a request's head until its part is sent.", "s",
            *((quantile.format(q), name) for q, name in ((0.5, "p50"), (0.99, "p99"))),
        ),
        lines(
            "Lanes", "Tenants with data on the way, and parts that wait in their lanes.", "short",
            ("sum(tenantry_lanes{@})", "lanes"),
            ("sum(tenantry_lane_waiting_fragments{@})", "parts that wait"),
        ),
        lines(
            "Slow class",
            "Tenants whose upstream does not answer in time, and their parts that were refused or cut.", "short",
            ("sum(tenantry_slow_tenants{@})", "slow tenants"),
            ("sum(rate(tenantry_slow_refused_total{@}[~]))", "parts refused per second"),
            ("sum(rate(tenantry_slow_cut_total{@}[~]))", "requests cut per second"),
        ),
        lines(
            "Second attempts",
            "Parts that had got through before, pieces of parts that were too large, and retries.", "ops",
            ("sum(rate(tenantry_receipts_used_total{@}[~]))", "not sent again (receipt)"),
            ("sum(rate(tenantry_pieces_total{@}[~]))", "pieces"),
            ("sum(rate(tenantry_upstream_retries_total{@}[~]))", "stale connection"),
            ("sum(rate(tenantry_upstream_unwritten_total{@}[~]))", "2xx that does not say what was written"),
        ),
    ]


def spool():
    """These have data only if spool.dir is set."""
    quantile = "histogram_quantile({}, sum by (le) (rate(tenantry_spool_commit_seconds_bucket{{@}}[~])))"
    room = "(tenantry_spool_max_bytes{@} - tenantry_spool_disk_bytes{@})"
    return [
        lines(
            "Disk in use", "The bytes of the spool's files, and spool.bytes_max, beyond which parts are refused.",
            "bytes",
            ("sum by (instance) (tenantry_spool_disk_bytes{@})", "{{instance}}"),
            ("sum by (instance) (tenantry_spool_bytes{@})", "{{instance}} still to be sent"),
            ("min(tenantry_spool_max_bytes{@})", "limit of each"),
        ),
        lines(
            "Time until full", "At the speed of the last minutes. A week stands for a week or more.", "s",
            (
                f"clamp_max({room} / clamp_min(deriv(tenantry_spool_disk_bytes{{@}}[~]), 0.001), 7 * 86400)",
                "{{instance}}",
            ),
        ),
        lines(
            "Age of the oldest data, by tenant", "The ten tenants whose data has waited longest in the spool.", "s",
            (
                "topk(10, time() - min by (tenant, destination) (tenantry_spool_oldest_timestamp_seconds{@}))",
                "{{tenant}} {{destination}}",
            ),
        ),
        lines(
            "Parts into the spool and out of it",
            "rejected: refused for good at the replay. failed probe: the upstream still takes nothing.", "ops",
            ("sum(rate(tenantry_spooled_parts_total{@}[~]))", "spooled"),
            ("sum(rate(tenantry_spool_replayed_parts_total{@}[~]))", "replayed"),
            ("sum(rate(tenantry_spool_rejected_parts_total{@}[~]))", "rejected"),
            ("sum(rate(tenantry_spool_probes_failed_total{@}[~]))", "failed probes"),
        ),
        lines(
            "Parts that it could not take, by reason",
            "full, tenant_full, too_old: a limit of the spool. failed: the disk. Senders keep such data.", "ops",
            ("sum by (reason) (rate(tenantry_spool_refused_parts_total{@}[~]))", "{{reason}}"),
            ("sum by (operation) (rate(tenantry_spool_errors_total{@}[~]))", "errors: {{operation}}"),
        ),
        lines(
            "Time to commit", "How long the disk takes to make parts durable. Senders wait for it.", "s",
            *((quantile.format(q), name) for q, name in ((0.5, "p50"), (0.99, "p99"))),
        ),
    ]


def ledger():
    return [
        lines(
            "Samples received, stored, spooled and refused",
            "What became of what came in. Parts that a receipt covers are not stored again.", "cps",
            ("sum(rate(tenantry_ledger_received_samples_total{@}[~]))", "received"),
            ("sum(rate(tenantry_ledger_stored_samples_total{@}[~]))", "stored"),
            ("sum(rate(tenantry_ledger_spooled_samples_total{@}[~])) or vector(0)", "spooled"),
            ("sum(rate(tenantry_ledger_refused_samples_total{@}[~]))", "refused"),
        ),
        lines(
            "Samples refused, by reason",
            "rejected: 4xx, lost. limited: 429. failed: 5xx or no answer. overloaded: a limit here.", "cps",
            ("sum by (reason) (rate(tenantry_ledger_refused_samples_total{@}[~]))", "{{reason}}"),
            stacked=True,
        ),
        lines(
            "In flight and unaccounted", "Samples that are being delivered, and those that the ledger misses.", "short",
            ("sum(tenantry_ledger_in_flight_samples{@})", "in flight"),
            ("sum(tenantry_unaccounted_samples{@})", "unaccounted"),
            least=None,
        ),
    ]


def limits():
    return [
        lines(
            "Requests in flight", "Requests in work, and concurrency, beyond which there is a 503.", "short",
            ("sum by (instance) (tenantry_requests_in_flight{@})", "{{instance}}"),
            ("min(tenantry_requests_in_flight_max{@})", "limit of each"),
        ),
        lines(
            "Bytes in flight",
            "Bytes of requests in work, and limits.in_flight_bytes_max, beyond which there is a 503.", "bytes",
            ("sum by (instance) (tenantry_in_flight_bytes{@})", "{{instance}}"),
            ("min(tenantry_in_flight_bytes_max{@})", "limit of each"),
        ),
        lines(
            "Parts refused for a share",
            "Parts beyond the share of a tenant, of all slow tenants, or of an upstream.", "ops",
            ("sum(rate(tenantry_over_share_total{@}[~]))", "a tenant's share"),
            ("sum(rate(tenantry_slow_refused_total{@}[~]))", "slow tenants' share"),
            ("sum(rate(tenantry_upstream_share_refused_total{@}[~]))", "an upstream's share"),
        ),
        lines(
            "Connections of senders",
            "Open ones, and the limit: beyond it, new ones wait in the kernel's backlog.", "short",
            ("sum by (instance) (tenantry_connections_open{@})", "{{instance}}"),
            ("min(tenantry_connections_max{@})", "limit of each"),
        ),
        lines(
            "Open files", "Descriptors in use, and the process' limit.", "short",
            ("process_open_fds{@}", "{{instance}}"),
            ("min(process_max_fds{@})", "limit of each"),
        ),
        lines(
            "Tenants that /metrics leaves out",
            "idle: nothing came for long. cap: they are shown without histograms.", "short",
            ("sum by (reason) (tenantry_metrics_tenants_hidden{@})", "{{reason}}"),
        ),
    ]


def process():
    return [
        lines(
            "CPU of each core",
            "The share of a CPU that each core's thread uses. At 100 % the core is the limit.", "percentunit",
            ("rate(tenantry_core_cpu_seconds_total{@}[~])", "{{instance}} core {{core}}"),
        ),
        lines(
            "Longest stall",
            "The longest turn of each core within a minute. All else on the core waited that long.", "s",
            ("tenantry_core_longest_stall_seconds{@}", "{{instance}} core {{core}}"),
        ),
        lines(
            "Memory", "Resident memory.", "bytes",
            ("process_resident_memory_bytes{@}", "{{instance}}"),
        ),
        lines(
            "CPU of the process", "All threads, those of log, passwords and the admin port included.", "percentunit",
            ("rate(process_cpu_seconds_total{@}[~])", "{{instance}}"),
        ),
        lines(
            "Work between cores", "Times that a core woke another, and connections that went to another core.", "ops",
            ("sum(rate(tenantry_doorbells_rung_total{@}[~]))", "doorbells"),
            ("sum(rate(tenantry_connections_handed_over_total{@}[~]))", "connections handed over"),
        ),
        lines(
            "Log lines", "Lines lost because the log's reader is too slow, and lines that wait.", "short",
            ("sum by (instance) (rate(tenantry_log_lines_dropped_total{@}[~]))", "{{instance}} dropped per second"),
            ("sum by (instance) (tenantry_log_lines_waiting{@})", "{{instance}} waiting"),
        ),
    ]


def configuration():
    reloads = "sum by (result) (increase(tenantry_{}_reloads_total{{@}}[~]))"
    return [
        lines(
            "Reloads", "What was read again. refused: it had mistakes, and nothing changed.", "short",
            (reloads.format("config"), "configuration {{result}}"),
            (reloads.format("tls"), "certificates {{result}}"),
            (reloads.format("secret"), "secrets {{result}}"),
        ),
        lines(
            "Age of the configuration", "Time since the configuration in force was read.", "s",
            ("time() - tenantry_config_last_reload_success_timestamp_seconds{@}", "{{instance}}"),
        ),
        lines(
            "Certificates expire in", "in: for senders. out: for upstreams. admin: for operators.", "s",
            ("min by (direction) (tenantry_tls_certificate_not_after_seconds{@}) - time()", "{{direction}}"),
            least=None,
        ),
        common.columns(
            "Versions", "What runs, and on which driver.",
            {"instance": "Instance", "version": "Version", "driver": "Driver"},
            ("sum by (instance, version, driver) (tenantry_build_info{@})", "Processes", "none"),
            ("sum by (instance) (time() - process_start_time_seconds{@})", "Uptime", "s"),
            ("sum by (instance) (tenantry_config_last_reload_successful{@})", "Last reload valid", "bool_yes_no"),
            height=6,
        ),
    ]
