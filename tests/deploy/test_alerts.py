"""The chart's alerts, checked by promtool and against the metrics of a running server."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import deploy
import server


@pytest.fixture(scope="module")
def groups():
    rule = deploy.find(deploy.objects(deploy.render(deploy.case("thanos"))), "PrometheusRule")
    return rule["spec"]["groups"]


def promtool(*arguments, cwd):
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_them_and_they_fire(groups, tmp_path):
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    assert f"{len(groups[0]['rules'])} rules found" in promtool("check", "rules", "rules.yml", cwd=tmp_path)
    (tmp_path / "test.yml").write_text((Path(__file__).parent / "alerts.yml").read_text())
    promtool("test", "rules", "test.yml", cwd=tmp_path)


def test_each_alert_has_a_test(groups):
    tested = set(re.findall(r"alertname: (\w+)", (Path(__file__).parent / "alerts.yml").read_text()))
    assert {rule["alert"] for rule in groups[0]["rules"]} - {"TenantryPaymentsSilent"} <= tested


def test_their_metrics_and_labels_exist(groups, tmp_path):
    with server.running(tmp_path, tls=True) as running:
        running.send()
        page = running.page("/metrics")
        running.stop()
    for rule in groups[0]["rules"]:
        for name, selector in re.findall(r"(tenantry_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            lines = [line for line in page.splitlines() if re.match(rf"{name}[ {{]", line)]
            assert lines, f"{rule['alert']}: there is no {name}"
            for label, values in re.findall(r'(\w+)(?:=~?|!=)"([^"]*)"', selector):
                if label in ("namespace", "job"):
                    continue
                for value in values.split("|"):
                    # The server runs on one driver only.
                    shown = f"{label}=" if label == "driver" else f'{label}="{value}"'
                    assert any(shown in line for line in lines), f"{rule['alert']}: {name} has no {shown}"
