"""The dashboards' files: generated, and sound."""

import re
import subprocess
import sys

import pytest

import mixin


@pytest.fixture(params=mixin.BOARDS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def board(path):
    return mixin.board(path)


def test_they_are_what_the_source_generates(tmp_path):
    command = [sys.executable, str(mixin.SOURCE / "generate.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in mixin.BOARDS}
    assert generated.keys() == committed.keys()
    for name, text in generated.items():
        assert text == committed[name], f"{name} is out of date: run configs/grafana/source/generate.py"


def test_uids_and_titles_are_stable_and_unique():
    uids = {path.stem: mixin.board(path)["uid"] for path in mixin.BOARDS}
    names = ("cortex-tenant", "tenantry-overview", "tenantry-tenant", "tenantry-upstream")
    assert uids == {name: name for name in names}
    assert len({mixin.board(path)["title"] for path in mixin.BOARDS}) == len(mixin.BOARDS)


def test_a_dashboard_has_what_grafana_needs(board):
    assert board["schemaVersion"] >= 42
    assert board.get("id") is None
    assert "tenantry" in board["tags"] and board["description"]
    assert [link["tags"] for link in board["links"] if link["type"] == "dashboards"] == [["tenantry"]]
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names[:3] == ["datasource", "job", "instance"]
    for variable in board["templating"]["list"][1:]:
        assert variable["datasource"]["uid"] == "${datasource}" and variable["label"] and variable["description"]
    used = set(re.findall(r"\$\{?(\w+)", str(mixin.panels(board)))) - {"datasource"}
    assert {name for name in used if not name.startswith("__")} == set(names[1:]), "variables are used, and defined"


def test_panels_do_not_overlap_and_have_ids_of_their_own(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])):
            assert cell not in taken, f"{panel['title']} is over {taken[cell]}"
            taken[cell] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height, "there are gaps"


def test_each_panel_explains_itself(board):
    for panel in mixin.panels(board):
        where = panel["title"]
        assert panel["title"] and panel["description"].endswith("."), where
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(references) == len(set(references)), where
        for target in panel["targets"]:
            if panel["type"] != "table":
                assert target["legendFormat"], where


def test_titles_are_unique_within_a_row(board):
    row, seen = "", set()
    for panel in board["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        key = (row, panel["title"], panel["type"])
        assert key not in seen
        seen.add(key)


def test_each_query_selects_by_job_and_instance(board):
    for title, target in mixin.queries(board):
        expression = target["expr"]
        for selector in re.findall(r"\{([^{}]*)\}", re.sub(r"\$\{\w+(:\w+)?\}", "", expression)):
            assert 'job=~"$job", instance=~"$instance"' in selector, f"{title}: {expression}"
        assert "{" in expression, f"{title}: {expression}"


def test_windows_follow_the_dashboard(board):
    for title, target in mixin.queries(board):
        windows = set(re.findall(r"\[([^\]]*)\]", target["expr"]))
        assert windows <= {"$__rate_interval", "$__range"}, f"{title}: {windows}"


def test_cortex_tenants_dashboard_uses_its_names_only():
    board = mixin.board(mixin.ROOT / "configs/grafana/cortex-tenant.json")
    words = str([target["expr"] for _, target in mixin.queries(board)] + board["templating"]["list"])
    assert "tenantry_" not in words and "process_" not in words
    names = set(re.findall(r"cortex_tenant_(?:timeseries|streams)_(\w+)", words))
    known = {
        "batches_received", "batches_received_bytes_bucket", "received", "requests", "request_errors",
        "request_duration_milliseconds_bucket", "request_duration_milliseconds_count",
    }
    assert names == known
