"""The pages of /metrics, read by the strict parser of the Python client library."""

import re
import urllib.request

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from prometheus_client.utils import floatToGoString

import server


def page(running, accept):
    request = urllib.request.Request(f"http://127.0.0.1:{running.metrics}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def series(families):
    return {(s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k != "le"))) for f in families for s in f.samples}


@pytest.mark.parametrize("driver", ["epoll"])
def test_openmetrics_is_accepted_and_has_the_series_of_the_classic_format(tmp_path, driver):
    with server.running(tmp_path, driver, False, ()) as running:
        running.send()
        media, text = page(running, "application/openmetrics-text; version=1.0.0")
        assert media == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        # The one difference from the specification: bounds are written as in the classic format, so that a series has
        # the same labels in both.
        strict = re.sub(r'le="([^"]+)"', lambda bound: f'le="{floatToGoString(float(bound[1]))}"', text)
        families = list(openmetrics.text_string_to_metric_families(strict))
        assert any(s.exemplar for f in families for s in f.samples)
        types = {f.name: f.type for f in families}
        assert types["cortex_tenant_timeseries_received"] == "unknown"
        assert types["tenantry_requests"] == "counter"
        media, text = page(running, "*/*")
        assert media == "text/plain; version=0.0.4; charset=utf-8"
        assert series(families) == series(classic(text))
        running.stop()
