import itertools

import pytest
from pipeline_runners import Runner
from pipeline_world import World


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server and six good printers on canary, for the tests of a module; `versions` never gives one twice."""
    folder = tmp_path_factory.mktemp("desk")
    world = World(folder / "world")
    try:
        world.versions = (f"2.{minor}.0" for minor in itertools.count(1))
        world.printers("canary", 6)
        world.runner = Runner(world, folder)
        yield world
    finally:
        world.stop()
