"""The mixin against the real program: no panel is empty, and each metric and label that a rule names exists."""

import re
import subprocess

import pytest

import mixin

# Panels that are empty while all is well, and why the load does not make it otherwise.
MAY_BE_EMPTY = {}

# Recorded over windows that are longer than the test, or shown only when they are not 0.
SHOWN_IF_NOT_0 = {"tenantry_ledger_refused_samples_total"}


@pytest.mark.parametrize("path", mixin.BOARDS, ids=lambda path: path.stem)
def test_each_query_parses_and_gives_data(live, path):
    board, empty = mixin.board(path), []
    for title, target in mixin.queries(board):
        expression = mixin.chosen(target["expr"])
        live.api("format_query", query=expression)
        if not live.values(expression, target.get("instant")) and (path.stem, title) not in MAY_BE_EMPTY:
            empty.append(f"{title}: {expression}")
    assert not empty, "\n".join(empty)


@pytest.mark.parametrize("path", mixin.BOARDS, ids=lambda path: path.stem)
def test_each_variable_has_values(live, path):
    for variable in mixin.board(path)["templating"]["list"][1:]:
        assert live.variable(variable["query"]["query"], variable.get("regex", "")), variable["name"]


def test_the_upstreams_to_choose_from_can_be_chosen(live):
    board = mixin.board(mixin.ROOT / "configs/grafana/tenantry-upstream.json")
    variable = next(variable for variable in board["templating"]["list"] if variable["name"] == "upstream")
    values = live.variable(variable["query"]["query"], variable["regex"])
    assert sorted(values) == ["eu", "gone", "main|"]
    of_upstreams = [target["expr"] for _, target in mixin.queries(board) if "${upstream:pipe}" in target["expr"]]
    assert of_upstreams
    for choice, names in [("main|", {"main"}), ("eu", {"eu"}), ("main||gone", {"main", "gone"})]:
        for expression in of_upstreams:
            found = live.api("query", query=mixin.chosen(expression, upstream=choice))["result"]
            assert {series["metric"]["upstream"] for series in found} == names, expression


def test_rules_run_without_errors(live):
    groups = live.api("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(len(mixin.rules(path)) for path in mixin.RULES)
    assert not [rule for rule in rules if rule["health"] == "err"], rules


def test_recording_rules_record(live):
    for rule in mixin.rules(mixin.RULES[1]):
        assert live.values(rule["record"], instant=True), rule["record"]


def metrics_of_rules():
    return {
        (name, label, value)
        for path in mixin.RULES
        for rule in mixin.rules(path)
        for name, matchers in mixin.selectors(rule["expr"])
        for label, operator, pattern in [*matchers, (None, None, "")]
        for value in (pattern.split("|") if operator == "=~" else [pattern])
        if not name.startswith(("job:", "job_le:", "tenant:"))
    }


def test_each_metric_and_label_of_a_rule_exists(live):
    page, missing = live.page() + live.page(port=live.spool_admin), []
    for name, label, value in sorted(metrics_of_rules(), key=str):
        lines = [line for line in page.splitlines() if re.match(rf"{name}[ {{]", line)]
        if name == "up" or lines and label in (None, "job", "code"):
            continue
        # The server runs on one driver only.
        shown = f"{label}=" if label == "driver" or name in SHOWN_IF_NOT_0 else f'{label}="{value}"'
        if not any(shown in line for line in lines):
            missing.append(f"{name} {shown}")
    assert not missing, missing


def test_reasons_that_are_shown_only_if_they_occur_are_the_programs(live):
    source = "".join(path.read_text() for path in (mixin.ROOT / "src").rglob("*.rs"))
    for name, label, value in metrics_of_rules():
        if name in SHOWN_IF_NOT_0 and label == "reason":
            assert f'"{value}"' in source, f"{name} has no reason {value}"
    shown = set(re.findall(r'^tenantry_ledger_refused_samples_total\{.*reason="(\w+)"', live.page(), re.MULTILINE))
    assert {"rejected", "limited", "failed"} <= shown


def test_alerts_about_the_faults_are_pending_and_others_are_not(live):
    """The load has faults of several kinds. The alerts about these have begun to count, and all others are silent."""
    begun = {alert["labels"]["alertname"] for alert in live.api("alerts")["alerts"]}
    faults = {
        "TenantryErrorBudgetBurnsFast", "TenantryErrorBudgetBurnsSlowly", "TenantryUpstreamFails",
        "TenantryUpstreamRefuses", "TenantryUpstreamLimits", "TenantryTenantLosesData", "TenantryTenantLimited",
        "TenantryTenantFails", "TenantryRefusesTenants", "TenantrySpoolLosesData",
    }
    if live.has_twins:
        faults |= {"TenantryUpstreamAddressRests", "TenantryUpstreamUnreachable"}
    of_the_machine = {
        "TenantryCoreBusy", "TenantryCoreStalls", "TenantryLanesWait", "TenantrySlowTenants", "TenantryWithoutIoUring",
    }
    assert begun - of_the_machine == faults


def test_queries_of_the_runbooks_parse(live):
    for block in re.findall(r"```promql\n(.*?)```", mixin.RUNBOOKS.read_text(), re.DOTALL):
        for query in block.splitlines():
            live.api("query", query=query)


def test_promtool_complains_about_old_names_only(live):
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=live.page(), capture_output=True, text=True, timeout=60)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line]
    old = ("cortex_tenant_", "tenantry_tls_certificate_days_left ")
    assert not [line for line in complaints if not line.startswith(old)], complaints
