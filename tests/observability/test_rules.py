"""The alerts and recording rules, with promtool."""

import json
import re
import subprocess

import pytest
import yaml

import mixin


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", mixin.RULES, ids=lambda path: path.name)
def test_promtool_accepts_them(path):
    assert f"SUCCESS: {len(mixin.rules(path))} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize("path", mixin.RULE_TESTS, ids=lambda path: path.name)
def test_they_do_what_their_unit_tests_say(path):
    promtool("test", "rules", path)


def test_each_alert_has_a_test_that_fires_and_one_that_does_not():
    fires, silent = set(), set()
    for path in mixin.RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
    names = {rule["alert"] for rule in mixin.alerts()}
    assert fires == names
    assert silent == names


def test_each_recording_rule_has_a_test():
    tested = (mixin.ROOT / "configs/prometheus/tests/recording.yml").read_text()
    missing = [rule["record"] for rule in mixin.rules(mixin.RULES[1]) if f"{rule['record']}{{" not in tested]
    assert not missing


def test_names_are_unique():
    for path in mixin.RULES:
        names = [rule.get("alert") or rule["record"] for rule in mixin.rules(path)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", mixin.alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule):
    assert re.fullmatch(r"Tenantry([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"].keys() == {"severity"} and rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    for text in (rule["annotations"][name] for name in ("summary", "description")):
        assert text.endswith(".") and "\n" not in text
    assert re.search(r"\$labels|Tenantry|upstream", rule["annotations"]["summary"]), "it names nothing"
    _, anchor = rule["annotations"]["runbook_url"].split("/configs/RUNBOOKS.md#")
    assert anchor == rule["alert"].lower()


@pytest.mark.parametrize("path", mixin.RULES, ids=lambda path: path.name)
def test_each_selector_names_the_job(path):
    for rule in mixin.rules(path):
        found = list(mixin.selectors(rule["expr"]))
        assert found
        for name, matchers in found:
            assert ("job", "=", "tenantry") in matchers, f"{rule}: {name}"


def test_each_alert_has_a_section_in_the_runbooks_and_each_section_an_alert():
    sections = re.findall(r"^### (\w+)$", mixin.RUNBOOKS.read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in mixin.alerts()], "in the order of the alerts"


def test_each_runbook_says_the_same_things():
    text = mixin.RUNBOOKS.read_text()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name, body = section.split("\n", 1)
        body = re.split(r"^## ", body, flags=re.MULTILINE)[0]
        for part in ("Meaning", "Impact", "Causes", "Look", "Do"):
            assert f"**{part}:**" in body, f"{name} has no {part}"
        assert "```" in body, f"{name} shows no command"
        assert len(body.splitlines()) <= 40, f"{name} is too long for 3 a.m."


def names_of(schema):
    """The names of all properties in a part of the API's description."""
    if isinstance(schema, list):
        return set().union(*map(names_of, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})).union(*map(names_of, schema.values()))


def test_the_commands_of_the_runbooks_are_those_of_the_api():
    api, text = json.loads(mixin.API.read_text()), mixin.RUNBOOKS.read_text()
    fields = names_of(api)
    asked = re.findall(r"\$A(/api/[^\s\"?]+)(?:\?([^\s\"]+))?\"?(?: \| jq (?:'([^']*)'|(\S+)))?", text)
    assert len(asked) > 20
    for path, parameters, quoted, plain in asked:
        known = api["paths"][path.replace("$T", "{tenant}")]["get"]
        values = {each["name"]: each["schema"].get("enum") for each in known.get("parameters", []) if "name" in each}
        for name, value in re.findall(r"(\w+)=(\w+)", parameters):
            assert values[name] is None or value in values[name], f"{path}?{parameters}"
        words = re.sub(r'"[^"]*"|\bselect\b', "", quoted or plain)
        unknown = set(re.findall(r"[a-z]\w+", words)) - fields
        assert not unknown, f"{path}: {unknown}"


def test_the_metrics_of_the_runbooks_are_those_of_the_rules_or_dashboards():
    known = str([rule["expr"] for path in mixin.RULES for rule in mixin.rules(path)])
    known += str([target["expr"] for path in mixin.BOARDS for _, target in mixin.queries(mixin.board(path))])
    blocks = re.findall(r"```promql\n(.*?)```", mixin.RUNBOOKS.read_text(), re.DOTALL)
    used = {name for block in blocks for name in re.findall(r"\btenantry_\w+", block)}
    assert len(used) > 10
    assert not [name for name in used if name not in known]
