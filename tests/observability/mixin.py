"""The files of the mixin, and what their expressions consist of."""

import json
import re

import yaml
from programs import ROOT

SOURCE = ROOT / "configs/grafana/source"
BOARDS = sorted((ROOT / "configs/grafana").glob("*.json"))
RULES = [ROOT / "configs/prometheus" / name for name in ("alerts.yml", "recording.yml")]
RULE_TESTS = sorted((ROOT / "configs/prometheus/tests").glob("*.yml"))
API = ROOT / "src/admin/openapi.json"
RUNBOOKS = ROOT / "configs/RUNBOOKS.md"


def rules(path):
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return rules(RULES[0])


def board(path):
    return json.loads(path.read_text())


def panels(board):
    """The panels that show something: no rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board):
    """Each query of a dashboard, with the title of its panel."""
    return [(panel["title"], target) for panel in panels(board) for target in panel["targets"]]


def chosen(expression, window="10s", span="20s", **choices):
    """An expression as Grafana would send it: with its variables' values, which are `All` unless given."""
    values = {
        "job": ".+", "instance": ".*", "tenant": ".*", "upstream": ".*", **choices,
        "__rate_interval": window, "__interval": window, "__range": span,
    }
    found = re.sub(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", lambda name: values[name[1] or name[2]], expression)
    assert "$" not in found.replace('"^$"', ""), found
    return found


def selectors(expression):
    """The metrics of an expression, each with its matchers: label, operator and value."""
    metric = r"\b((?:job_le|job|tenant):[\w:]+|tenantry_\w+|process_\w+|up)\b"
    for name, matchers in re.findall(metric + r"(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', matchers)
