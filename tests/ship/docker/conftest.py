import pathlib
import sys

import pytest

# The live server is the one of the alerts' tests.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "observability"))

from live import binary  # noqa: E402


@pytest.fixture(scope="session")
def program():
    return binary()
