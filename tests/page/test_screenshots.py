"""Writes perf/pages/*.png: `.ci/page --screenshots`. It takes three minutes; scenes.py says what they show."""

import functools
from pathlib import Path
from urllib.parse import quote

from browser import PHONE
from PIL import Image
from scenes import scenes

PAGES = Path(__file__).parents[2] / "perf/pages"
EXPLAIN = "#/explain?series=" + quote('{__name__="up", __tenant__="payments"}')
TALL, WIDE = (1280, 900), (1440, 1100)

# Name, tenants, view, and how it is looked at.
SHOTS = [
    ("overview-5", 5, "#/", {"size": (1440, 980)}),
    ("overview-10000", 10_000, "#/", {"size": WIDE}),
    ("dark", 10_000, "#/tenants", {"size": TALL, "scheme": "dark"}),
    ("tenant", 10_000, "#/tenant/identity", {"size": (1280, 1120)}),
    ("explain", 5, EXPLAIN, {"size": (1280, 560)}),
    ("phone", 10_000, "#/", {"size": PHONE}),
    ("phone-tenants", 10_000, "#/tenants", {"size": PHONE, "scheme": "dark"}),
]


def nearest(colours):
    """Finds the nearest of these colours. Pillow looks it up roughly, and turns a small green dot grey."""

    @functools.cache
    def find(colour):
        return min(range(len(colours)), key=lambda at: sum((a - b) ** 2 for a, b in zip(colour, colours[at])))

    return find


def shrink(path):
    """Reduces the picture to 256 colours: the most frequent ones, and some from everywhere between."""
    image = Image.open(path).convert("RGB")
    frequent = [colour for _, colour in sorted(image.getcolors(1 << 24), reverse=True)[:160]]
    between = image.quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette()
    colours = [*frequent, *zip(*[iter(between)] * 3)][:256]
    small = Image.new("P", image.size)
    small.putpalette([part for colour in colours for part in colour])
    small.putdata(list(map(nearest(colours), image.get_flattened_data())))
    small.save(path, optimize=True)
    assert path.stat().st_size < 150_000, f"{path} is too large"


def is_there(browser):
    shown = any(map(browser.shows, ["#tenants-table td", "#tenant-body", "#explain-result"]))
    # The first look at a tenant opens a tap that finds the rule.
    return shown and "not known" not in browser.text("#tenant-from")


def test_screenshots(browser, tmp_path):
    with scenes(tmp_path) as urls:
        for name, count, view, look in SHOTS:
            browser.look(motion="reduce", **look)
            browser.open(f"{urls[count]}/{view}")
            browser.until(lambda: is_there(browser))
            browser.screenshot(PAGES / f"{name}.png")
    for name, *_ in SHOTS:
        shrink(PAGES / f"{name}.png")
