import pytest
import stack


def pytest_collection_modifyitems(items):
    """What needs the running program comes last, so that there is load meanwhile."""
    items.sort(key=lambda item: "live" in item.fixturenames)


@pytest.fixture(scope="session", autouse=True)
def started(request, tmp_path_factory):
    """Tenantry under load, with a Prometheus that scrapes it; None if no test asks for it."""
    if not any("live" in item.fixturenames for item in request.session.items):
        yield None
        return
    with stack.running(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="session")
def live(started):
    """The same, after a while."""
    started.wait()
    return started
