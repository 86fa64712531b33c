"""Many browsers at a time."""

import asyncio
import json
import random
import time
from urllib.parse import urlsplit

from test_api import assert_valid

BROWSERS, SECONDS, POLL_SECONDS = 200, 2.5, 2
PAGES = {
    "/api/v1/status": "Status", "/api/v1/tenants?sort=samples&order=desc&offset=0&limit=50": "TenantPage",
    "/api/v1/upstreams": "Upstreams",
}


async def get(port, path):
    """Status, body, and how long it took."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode(), body, time.monotonic() - begun


async def browse(port, phase, end, answers):
    """What a page does: three questions at once, every two seconds."""
    await asyncio.sleep(phase)
    while (begun := time.monotonic()) < end:
        for path, answer in zip(PAGES, await asyncio.gather(*[get(port, path) for path in PAGES])):
            answers.append((path, *answer))
        await asyncio.sleep(min(begun + POLL_SECONDS, end) - time.monotonic())


async def probe(port, end, answers):
    while time.monotonic() < end:
        answers.append(("/alive", *await get(port, "/alive")))
        await asyncio.sleep(0.05)


async def crowd(port):
    answers, end, chance = [], time.monotonic() + SECONDS, random.Random(1)
    phases = [chance.uniform(0, POLL_SECONDS) for _ in range(BROWSERS)]
    await asyncio.gather(probe(port, end, answers), *[browse(port, phase, end, answers) for phase in phases])
    return answers


def test_two_hundred_browsers(many):
    answers = asyncio.run(crowd(urlsplit(many.url).port))
    assert len(answers) > 3 * BROWSERS
    assert {status for _, status, _, _ in answers} == {"HTTP/1.1 200 OK"}
    bodies = {(path, body) for path, _, body, _ in answers if path != "/alive"}
    assert {path for path, _ in bodies} == set(PAGES)
    for path, body in sorted(bodies)[::40]:
        assert_valid(json.loads(body), PAGES[path])
    for path in ["/alive", *PAGES]:
        times = sorted(seconds for asked, _, _, seconds in answers if asked == path)
        print(f"{path}: {len(times)} answers, median {times[len(times) // 2]:.3f} s, slowest {times[-1]:.3f} s")
    # A probe's patience is a second.
    assert max(seconds for path, _, _, seconds in answers if path == "/alive") < 1
