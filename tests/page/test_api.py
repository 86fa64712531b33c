"""The API against its OpenAPI document: requests that schemathesis makes up, and mistakes that we name."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import validate
from schemathesis import checks as conform

DOCUMENT = json.loads((Path(__file__).parents[2] / "src/admin/openapi.json").read_text())

# A tap takes as long as it is asked to; it has a test of its own.
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/api/v1/tap")


def get(url, method="GET"):
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def assert_valid(value, name):
    """By the schema of the document with this name."""
    root = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    errors = list(Draft202012Validator(root, format_checker=FormatChecker()).iter_errors(value))
    assert not errors, errors[:3]


def test_the_document_is_valid_and_served(few):
    validate(DOCUMENT)
    status, headers, body = get(few.url + "/api/v1/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == DOCUMENT


CHECKS = [
    conform.not_a_server_error,
    conform.CHECKS.get_one("status_code_conformance"),
    conform.CHECKS.get_one("content_type_conformance"),
    conform.CHECKS.get_one("response_headers_conformance"),
    conform.CHECKS.get_one("response_schema_conformance"),
]


@schema.parametrize()
@settings(
    max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_document_says(case, few):
    case.call_and_validate(base_url=few.url, checks=CHECKS, timeout=10)


PAGES = [("status", "Status"), ("tenants", "TenantPage"), ("upstreams", "Upstreams"), ("config", "Config")]


@pytest.mark.parametrize(("page", "name"), PAGES)
def test_pages_and_their_headers(many, page, name):
    status, headers, body = get(f"{many.url}/api/v1/{page}")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert_valid(json.loads(body), name)
    status, headers, body = get(f"{many.url}/api/v1/{page}", "HEAD")
    assert (status, headers["Content-Type"], body) == (200, "application/json", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_change_nothing(few, method):
    assert get(few.url + "/api/v1/tenants", method)[0] == 405


def tenants(site, **query):
    status, _, body = get(f"{site.url}/api/v1/tenants?{urlencode(query)}")
    assert status == 200, body
    page = json.loads(body)
    assert_valid(page, "TenantPage")
    return page


def test_sorting_and_paging(many):
    first = tenants(many, sort="tenant", order="asc", limit=500)
    assert first["total"] > 9000 and first["matched"] == first["total"] and len(first["tenants"]) == 500
    names = [row["tenant"] for row in first["tenants"]]
    assert names == sorted(names)
    second = tenants(many, sort="tenant", order="asc", limit=10, offset=495)
    assert [row["tenant"] for row in second["tenants"]][:5] == names[495:]
    assert tenants(many, offset=4_294_967_295)["tenants"] == []


@pytest.mark.parametrize("sort", "samples bytes requests errors waiting oldest merges in_flight".split())
def test_each_order(few, sort):
    down, up = tenants(few, sort=sort), tenants(few, sort=sort, order="asc")
    assert {row["tenant"] for row in down["tenants"]} == {row["tenant"] for row in up["tenants"]}


def test_each_tenant_has_a_page(few):
    for row in tenants(few)["tenants"]:
        path = f"/api/v1/tenants/{quote(row['tenant'], safe='')}?destination={row['destination']}"
        status, _, body = get(few.url + path)
        assert status == 200
        assert_valid(json.loads(body), "TenantDetail")
        assert json.loads(body)["tenant"] == row["tenant"]


def test_samples_are_accounted_for(few):
    """Each answer is one moment: the sum holds in it, for the process and for each tenant."""
    ledgers = [json.loads(get(few.url + "/api/v1/status")[2])["ledger"]]
    for row in tenants(few)["tenants"]:
        path = f"/api/v1/tenants/{quote(row['tenant'], safe='')}?destination={row['destination']}"
        ledgers.append(json.loads(get(few.url + path)[2])["ledger"])
    for ledger in ledgers:
        kept = ledger["stored"] + ledger["repeated"] + ledger["spooled"]
        known = kept + sum(ledger["refused"].values()) + ledger["in_flight"]
        assert ledger["received"] - known == ledger["unaccounted"]


@pytest.mark.parametrize("query", [
    "sort=name", "sort=", "order=up", "order=ASC%00", "offset=-1", "offset=1.5", "offset=",
    "offset=99999999999999999999", "limit=0", "limit=501", "limit=ten", "limit=%00", "limit=+5", "destination=traces",
    "destination=", "sort=%ff",
])
def test_bad_parameters(few, query):
    status, headers, body = get(f"{few.url}/api/v1/tenants?{query}")
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert_valid(json.loads(body), "Error")
    # The text names the parameter.
    assert query.partition("=")[0] in json.loads(body)["error"]


@pytest.mark.parametrize("path", [
    "explain", "explain?series=", "explain?series=%7Bbad", "explain?series=%7Ba%3D%22b%22%7D&destination=x",
    "tap", "tap?match=%7B", "tap?match=%7B%7D&seconds=0", "tap?match=%7B%7D&seconds=61", "tap?match=%7B%7D&limit=0",
])
def test_bad_questions(few, path):
    status, _, body = get(f"{few.url}/api/v1/{path}")
    assert status == 400, body
    assert_valid(json.loads(body), "Error")


@pytest.mark.parametrize("path", ["tenants/no-such-tenant", "tenants/%ff", "tenants/a%2Fb%00", "nothing", ""])
def test_nothing_there(few, path):
    status, headers, body = get(f"{few.url}/api/v1/{path}")
    # An ID that is not UTF-8 may be a mistake as well.
    assert status == 404 or (status, path) == (400, "tenants/%ff")
    assert headers["Content-Type"] == "application/json"
    assert_valid(json.loads(body), "Error")


def test_unknown_parameters_are_ignored(few):
    assert get(few.url + "/api/v1/tenants?colour=red&limit=2&colour=%ff")[0] == 200


def test_a_tap(few):
    query = urlencode({"match": '{__name__=~".+"}', "seconds": 1, "limit": 50})
    status, headers, body = get(f"{few.url}/api/v1/tap?{query}")
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    *events, end = [json.loads(line) for line in body.splitlines()]
    assert events
    for event in events:
        assert_valid(event, "TapEvent")
    assert_valid(end, "TapEnd")
    assert end["events"] == len(events) <= 50
