"""Fixtures: a browser, and two servers, with five and with ten thousand tenants."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import server
from browser import Browser
from mock import Mock


def pytest_addoption(parser):
    parser.addoption("--server", choices=["real", "mock"], default="real", help="whose pages and answers are tested")
    parser.addoption("--screenshots", action="store_true", help="write perf/pages/*.png anew")


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("screenshots")
    keep = [item for item in items if ("screenshots" in item.module.__name__) == wanted]
    items[:] = keep


@contextmanager
def site(kind, directory, tenants):
    """A server's URL, and a tenant that its upstream refuses."""
    if kind == "real":
        with server.running(directory, tenants) as url:
            yield SimpleNamespace(url=url, failing=server.FAILING)
    else:
        mock = Mock(tenants)
        yield SimpleNamespace(url=mock.url, failing="identity")
        mock.stop()


@pytest.fixture(scope="session")
def few(request, tmp_path_factory):
    with site(request.config.getoption("server"), tmp_path_factory.mktemp("few"), 5) as found:
        yield found


@pytest.fixture(scope="session")
def many(request, tmp_path_factory):
    with site(request.config.getoption("server"), tmp_path_factory.mktemp("many"), 10_000) as found:
        yield found


@pytest.fixture
def mock():
    """The mock with 10,000 tenants and names that no real upstream allows, in the state that the test wants."""
    found = Mock(10_000)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def chromium():
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture
def browser(chromium):
    """The browser as new. After each test nothing from outside has got in."""
    chromium.offline(False)
    chromium.look()
    chromium.driver.get_log("browser")
    yield chromium
    chromium.assert_unharmed()
    chromium.offline(False)
