"""Texts from outside that are meant to do harm, through the real server: to the page, the API and /metrics."""

import itertools
import json
import re
import shutil
import subprocess
import unicodedata
import urllib.request
from urllib.parse import quote, urlencode

import hostile
import pytest
from browser import DESKTOP, PHONE
from hostile import BOTH, NAMES, NOTES, TEXTS
from test_api import assert_valid, get, tenants

ALL = {*NAMES, BOTH}
SHAPELESS = "\u115f\u1160\u2800\u3164\uffa0"
HARM = "<img src=x onerror='window.harmed = true'>"


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    if request.config.getoption("server") == "mock":
        pytest.skip("the mock has no upstream")
    with hostile.running(tmp_path_factory.mktemp("hostile")) as found:
        yield found


def is_unseen(letter):
    return unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Cs") or letter in SHAPELESS


def pictured(text):
    """As the page shows it."""
    escapes = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}

    def picture(letter):
        code = ord(letter)
        return escapes.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"U+{code:04X}")

    return "".join(picture(letter) if is_unseen(letter) else letter for letter in text)


def details(site):
    """All that the API tells about each tenant, by ID."""
    found = {}
    for name in ALL:
        status, _, body = get(f"{site.url}/api/v1/tenants/{quote(name, safe='')}?destination=logs")
        assert status == 200, name
        found[name] = json.loads(body)
        assert_valid(found[name], "TenantDetail")
    return found


LOOK = """return [
    document.querySelectorAll('main bdi *:not(span.control)').length,
    [...document.querySelectorAll('main bdi')].every((bdi) => getComputedStyle(bdi).unicodeBidi === 'isolate'),
    document.body.textContent + document.title]"""


def assert_in_order(browser):
    browser.assert_unharmed()
    assert not browser.too_wide()
    elements, all_isolated, shown = browser.run(LOOK)
    assert elements == 0 and all_isolated
    # What is not seen is pictured.
    assert not [letter for letter in shown if is_unseen(letter) and letter != "\n"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_table(browser, site, size):
    browser.look(size)
    browser.open(site.url + "/#/tenants")
    browser.until_asked(lambda: set(browser.rows()) == ALL)
    cells = browser.until_asked(lambda: [text for text in browser.texts("#tenants-table td.last") if text])
    assert len(cells) == len(ALL) and any("U+202E" in cell for cell in cells)
    assert_in_order(browser)
    # Neither a long name nor a tower of accents makes its row larger.
    heights = browser.run("return [...document.querySelectorAll('#tenants-table tbody tr')].map((r) => r.offsetHeight)")
    assert max(heights) < 1.3 * min(heights), heights


def test_from_a_filter_to_a_tenant(browser, site):
    name = NAMES[1]
    browser.open(f"{site.url}/#/tenants?q={quote(name)}")
    browser.until(lambda: browser.rows() == [name])
    browser.click("#tenants-table tbody td.name a")
    browser.until(lambda: browser.shows("#tenant-body"))
    assert browser.text("#tenant-title") == name and browser.driver.title.startswith(name)


def test_each_tenant(browser, site):
    known = details(site)
    browser.open(site.url + "/")
    for name in sorted(ALL):
        browser.look(DESKTOP)
        browser.run("location.hash = arguments[0]", f"#/tenant/{quote(name, safe='')}?destination=logs")
        browser.until(lambda: browser.text("#tenant-title") == name and browser.shows("#tenant-body"))
        assert f"X-Scope-OrgID: {name}" in browser.text("#tenant-to")
        # Every word of the upstream is there, as text.
        reasons = browser.texts("#errors-table td.reason")
        assert reasons and set(reasons) == {pictured(error["reason"]) for error in known[name]["errors"]}
        assert_in_order(browser)
        browser.look(PHONE)
        assert not browser.too_wide(), name


SERIES = [
    (f'{{__name__="up", tenant="{HARM}"}}', HARM),
    ('{__name__="up", tenant="\u202egnp.exe\u2066\\x00\\x1b[31m"}', ""),
    (f'{{__name__="{HARM}", tenant="{"<b>" * 80}"}}', "<b><b>"),
    (f'{{__name__="up", tenant="{"y" * 4_000}"}}', "yyy"),
    (f'{{__name__="up", note="{HARM * 80}"}}', ""),
    (f'{{{HARM}="\u202e"}}', ""),
]


def test_explain(browser, site):
    browser.open(site.url + "/")
    asked = "return ['series', 'source'].map((name) => document.querySelector(`#explain-${name}`).value)"
    for (series, part), source in zip(SERIES, itertools.cycle(["", HARM, "\u202e\x1b"])):
        browser.look(DESKTOP)
        browser.run("location.hash = arguments[0]", "#/explain?" + urlencode({"series": series, "source": source}))
        browser.until(lambda: browser.run(asked) == [series, source])
        browser.until(lambda: browser.shows("#explain-result") or browser.text("#explain-error"))
        assert part in browser.text("#view-explain"), series
        assert_in_order(browser)
        browser.look(PHONE)
        assert not browser.too_wide(), series


def assert_bare(text):
    """Nothing in it is unseen: it may be printed to a terminal."""
    assert not [letter for letter in text if is_unseen(letter)], text


def test_the_api(site):
    assert {row["tenant"] for row in tenants(site)["tenants"]} == ALL
    for name, detail in details(site).items():
        assert detail["tenant"] == name and detail["header"]["value"] == name
        assert detail["errors"] and detail["last_error"] in detail["errors"]
        sent = TEXTS[NAMES.index(name) if name in NAMES else 0].decode(errors="replace")
        for error in detail["errors"]:
            assert len(error["reason"].encode()) <= 256
            assert error["sender"].startswith("127.0.0.1:") and re.fullmatch("[0-9a-f-]{36}", error["request_id"])
            assert not sent or sent[:20] in error["reason"] or sent.strip()[:20] in error["reason"]
    for series, _ in SERIES:
        status, headers, body = get(f"{site.url}/api/v1/explain?{urlencode({'series': series})}")
        assert headers["Content-Type"] == "application/json"
        assert_valid(json.loads(body), "Explanation" if status == 200 else "Error")
        assert_bare(json.loads(body).get("error", "") if status != 200 else json.loads(body)["reason"] or "")


def test_a_tap(site):
    # The labels of one note are too large for a tap.
    expected = 1 + sum(len(NOTES[at % len(NOTES)]) < 4_000 for at in range(len(NAMES)))
    query = urlencode({"match": '{tenant=~".+"}', "seconds": 5, "limit": expected})
    with urllib.request.urlopen(f"{site.url}/api/v1/tap?{query}", timeout=10) as answer:
        hostile.push_all(site.push)
        *events, end = [json.loads(line) for line in answer.read().splitlines()]
    assert_valid(end, "TapEnd")
    assert len(events) == expected
    for event in events:
        assert_valid(event, "TapEvent")
        assert event["tenant"] in ALL and event["result"] != "stored"
        assert_bare(event["series"])
    shown = " ".join(event["series"] for event in events)
    assert HARM in shown and "\\u202egnp.exe\\u2066 \\x00\\x1b[31m\\n" in shown


SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)', re.ASCII)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)
UNESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def parsed(text):
    """The labels of each sample in the text format; it must be what its specification allows."""
    assert text.endswith("\n")
    kinds, found, family = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in kinds, f"{family} comes twice"
            kinds[family] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            parts = ["", "_bucket", "_sum", "_count"] if kinds[family] == "histogram" else [""]
            assert name in [family + part for part in parts], line
            float(value)
            assert (name, labels) not in found, f"twice: {line}"
            unescape = lambda text: re.sub(r"\\.", lambda escape: UNESCAPED[escape[0]], text)
            found[name, labels] = {key: unescape(text) for key, text in LABEL.findall(labels or "")}
    return list(found.values())


def test_metrics(site):
    status, headers, body = get(site.url + "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert {labels["tenant"] for labels in parsed(body.decode()) if "tenant" in labels} == ALL
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=20)
        # 3 is about names and units, which tests/metrics_page.rs looks at.
        assert done.returncode in (0, 3), done.stderr.decode()
