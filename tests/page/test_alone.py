"""The page with answers that a real server does not give on demand."""

import time
from urllib.parse import quote

from mock import HOSTILE


def test_all_well(browser, mock):
    mock.world.state["well"] = True
    browser.open(mock.url + "/")
    browser.until(lambda: browser.text("#health").startswith("All well"))
    # Not before both answers are there: the second says whether addresses rest.
    assert "10,000 tenants" in browser.text("#health")


def test_samples_that_are_unaccounted_for(browser, mock):
    status = mock.world.status

    def lost(query):
        answer = status(query)
        answer["ledger"]["unaccounted"] = 12
        return answer

    mock.world.status = lost
    browser.open(mock.url + "/")
    browser.until(lambda: "12 samples unaccounted for" in browser.text("#health"))
    assert browser.run("return document.querySelector('#health li').dataset.level") == "bad"


def test_a_failed_reload(browser, mock):
    status = mock.world.status

    def failed(query):
        answer = status(query)
        answer["reload"] |= {"last_succeeded": False, "waiting_for_restart": ["listen", "<b>"]}
        return answer

    mock.world.status = failed
    browser.open(mock.url + "/")
    browser.until(lambda: "Last reload failed" in browser.text("#health"))
    assert "2 settings waiting for a restart" in browser.text("#health")
    assert "listen, <b>" in browser.text("#process")


def test_an_address_that_has_never_answered_is_not_called_up(browser, mock):
    upstreams = mock.world.upstreams

    def silent(query):
        answer = upstreams(query)
        answer["upstreams"][0]["addresses"][0] |= {"state": "up", "usual_seconds": None, "last_answer_at": None}
        return answer

    mock.world.upstreams = silent
    browser.open(mock.url + "/")
    states = browser.until(lambda: browser.texts("#upstreams tbody td:nth-child(2)"))
    assert states[:2] == ["no answer yet", "up"]


def test_names_that_no_server_allows_are_inert_and_whole(browser, mock):
    """The names that one does allow are in test_hostile.py."""
    browser.open(mock.url + "/#/tenants")
    browser.until(lambda: len(browser.rows()) == 50)
    shown = browser.rows()
    assert "U+202Egnp.exeU+2066 hiddenU+2069" in shown
    assert "line\\nfeed\\ttab\\x00zero\\x1b[31mred\\x7f\\x85" in shown
    assert "x" * 10240 in shown
    # A long name does not widen its row, nor a tower of accents heighten it.
    rows = "[...document.querySelectorAll('#tenants-table tbody tr')]"
    heights = browser.run(f"return {rows}.map((row) => row.offsetHeight)")
    assert max(heights) < 1.3 * min(heights)
    assert not browser.too_wide()
    # No character that is not seen is left in the document.
    assert browser.run(r"return !/[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/.test(document.body.textContent)")
    for tenant in mock.world.tenants:
        name, destination = tenant["tenant"], tenant["destination"]
        if name not in HOSTILE:
            continue
        browser.run("location.hash = arguments[0]", f"#/tenant/{quote(name, safe='')}?destination={destination}")
        browser.until(lambda: browser.shows("#tenant-body"))
        assert browser.text("#tenant-to").count("X-Scope-OrgID") == 1
        browser.assert_unharmed()
    assert browser.run("return document.querySelectorAll('main bdi *:not(span)').length") == 0


def test_late_answers_are_dropped(browser, mock):
    page = mock.world.page

    def slow_for_some(query):
        if query.get("q") == "pay":
            time.sleep(1)
        return page(query)

    mock.world.page = slow_for_some
    browser.open(mock.url + "/#/tenants")
    browser.until(lambda: len(browser.rows()) == 50)
    browser.run("location.hash = '#/tenants?q=pay'")
    browser.run("location.hash = '#/tenants?q=search'")
    browser.until(lambda: all("search" in row for row in browser.rows()))
    time.sleep(1.2)
    assert all("search" in row for row in browser.rows())


def test_a_server_that_wants_a_password(browser, mock):
    browser.open(mock.url + "/")
    mock.world.state["status"] = 401
    browser.until_asked(lambda: "wants a user and a password" in browser.text("#lost"))
    mock.world.state["status"] = 503
    browser.until_asked(lambda: "No answer from the server since" in browser.text("#lost"))
    mock.world.state["status"] = None
    browser.until_asked(lambda: not browser.shows("#lost"))


def test_an_answer_of_another_version(browser, mock):
    browser.open(mock.url + "/")
    mock.world.status = lambda query: {"version": "9"}
    browser.until_asked(lambda: "load the page again" in browser.text("#lost"))


def test_rows_stay_under_the_pointer(browser, mock):
    browser.open(mock.url + "/#/tenants")
    browser.until(lambda: len(browser.rows()) == 50)
    browser.run("document.querySelector('#tenants-table td.name a').focus()")
    before = browser.rows()
    page = mock.world.page

    def turned(query):
        answer = page(query)
        answer["tenants"].reverse()
        return answer

    mock.world.page = turned
    asked = "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('tenants?')).length"
    count = browser.run(asked)
    browser.until_asked(lambda: browser.run(asked) >= count + 2)
    assert browser.rows() == before
    browser.run("document.activeElement.blur()")
    browser.until_asked(lambda: browser.rows() != before)


def test_a_slow_server_is_asked_less_often(browser, mock):
    browser.open(mock.url + "/")
    mock.world.state["delay"] = 0.3
    slow = """return performance.getEntriesByType('resource').filter(({ name, duration }) =>
        name.endsWith('status') && duration >= 300).map(({ startTime }) => startTime)"""
    browser.round()
    times = browser.until(lambda: len(browser.run(slow)) >= 2 and browser.run(slow))
    # Ten times as long as the answers took.
    assert times[1] - times[0] > 3000


def test_screen_readers_hear_of_a_change_once(browser, mock):
    mock.world.state["well"] = True
    browser.open(mock.url + "/")
    browser.until(lambda: browser.text("#health").startswith("All well"))
    browser.run("""window.said = []; new MutationObserver(() => said.push(
        document.querySelector('#announcement').textContent)).observe(
        document.querySelector('#announcement'), { childList: true, subtree: true, characterData: true })""")
    mock.world.state["well"] = False
    # The upstreams are asked for after the status, so it may take two answers.
    said = browser.until_asked(
        lambda: browser.run("return said.join(' ').includes('in backoff') ? said : null")
    )
    assert "in backoff" in " ".join(said) and len(said) <= 2
    before = browser.text("#samples-rate")
    browser.until_asked(lambda: browser.text("#samples-rate") != before)
    assert browser.run("return window.said") == said
