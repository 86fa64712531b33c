"""Writes perf/pages/*.png from the mock: `.ci/page --screenshots`."""

from pathlib import Path
from urllib.parse import quote

from browser import PHONE
from mock import Mock
from PIL import Image

PAGES = Path(__file__).parents[2] / "perf/pages"
EXPLAIN = "#/explain?series=" + quote('{__name__="up", namespace="payments"}')
TALL, WIDE = (1280, 900), (1440, 1100)

# Name, tenants, view, and how it is looked at.
SHOTS = [
    ("overview-5", 5, "#/", {"size": WIDE}),
    ("overview-10000", 10_000, "#/", {"size": WIDE}),
    ("dark", 10_000, "#/tenants", {"size": TALL, "scheme": "dark"}),
    ("tenant", 10_000, "#/tenant/identity", {"size": (1280, 1020)}),
    ("explain", 5, EXPLAIN, {"size": (1280, 520)}),
    ("phone", 10_000, "#/", {"size": PHONE}),
    ("phone-tenants", 10_000, "#/tenants", {"size": PHONE, "scheme": "dark"}),
]


def test_screenshots(browser):
    mocks = {count: Mock(count) for count in {count for _, count, _, _ in SHOTS}}
    mocks[5].world.state["well"] = True
    for name, count, view, look in SHOTS:
        browser.look(motion="reduce", **look)
        browser.open(f"{mocks[count].url}/{view}")
        browser.until(lambda: any(map(browser.shows, ["#tenants-table td", "#tenant-body", "#explain-result"])))
        path = PAGES / f"{name}.png"
        browser.screenshot(path)
        palette = Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        palette.save(path, optimize=True)
        assert path.stat().st_size < 150_000, f"{path} is too large"
    for mock in mocks.values():
        mock.stop()
