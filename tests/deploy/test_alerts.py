"""The chart's rules: those of configs/prometheus, about one release. tests/observability tests what they say."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import deploy

MIXIN = deploy.ROOT / "configs/prometheus"
FILES = ["alerts.yml", "recording.yml"]


def groups_of(case="thanos", release="tenantry", **values):
    rule = deploy.find(deploy.objects(deploy.render(deploy.case(case) | values, release)), "PrometheusRule")
    return rule["spec"]["groups"]


@pytest.fixture(scope="module")
def groups():
    return groups_of()


def rules(groups):
    return {rule.get("alert") or rule["record"]: rule for group in groups for rule in group["rules"]}


def mixin():
    return rules(group for name in FILES for group in yaml.safe_load((MIXIN / name).read_text())["groups"])


def promtool(*arguments, cwd):
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_the_chart_has_copies_of_the_mixins_files(name):
    copy = deploy.CHART / "files" / name
    assert copy.read_text() == (MIXIN / name).read_text(), f"cp {MIXIN / name} {copy}"


def test_the_chart_has_the_same_rules_about_its_release(groups):
    of_release = 'namespace="ns", job="tenantry"'
    expected = {
        name: rule | {"expr": rule["expr"].replace('job="tenantry"', of_release)} for name, rule in mixin().items()
    }
    found = rules(groups)
    assert found.pop("TenantryPaymentsSilent")["for"] == "15m"
    assert found == expected


def test_each_selector_is_about_the_release():
    found = rules(groups_of(release="rel"))
    del found["TenantryPaymentsSilent"]
    for name, rule in found.items():
        selectors = re.findall(r"\{([^{}]*)\}", rule["expr"])
        assert selectors, name
        for selector in selectors:
            assert selector.startswith('namespace="ns", job="rel-tenantry"'), f"{name}: {selector}"


def test_epoll_is_expected_without_the_profile():
    without = rules(groups_of(seccompProfile={"type": "RuntimeDefault"}))
    assert set(rules(groups_of())) - set(without) == {"TenantryWithoutIoUring"}


def test_promtool_accepts_them_and_they_fire(groups, tmp_path):
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    assert f"{len(rules(groups))} rules found" in promtool("check", "rules", "rules.yml", cwd=tmp_path)
    (tmp_path / "test.yml").write_text((Path(__file__).parent / "alerts.yml").read_text())
    promtool("test", "rules", "test.yml", cwd=tmp_path)


@pytest.mark.parametrize("name", ["process.yml", "spool.yml", "tenants.yml", "upstream.yml"])
def test_tests_of_the_mixin_hold_for_them_in_their_namespace(groups, tmp_path, name):
    """Some of the mixin's tests, those that are about Kubernetes, with the rules as the chart renders them."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    tests = yaml.safe_load((MIXIN / "tests" / name).read_text())
    tests["rule_files"] = ["rules.yml"]
    tests["tests"] = [test for test in tests["tests"] if "outside of Kubernetes" not in test["name"]]
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", "test.yml", cwd=tmp_path)
