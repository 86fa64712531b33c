import sys
from pathlib import Path

import pytest

# material.py, which makes certificates.
sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy"))

import stack  # noqa: E402


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """Tenantry under load, with a Prometheus that has scraped it for a while."""
    with stack.running(tmp_path_factory.mktemp("live")) as running:
        yield running
