"""The pipelines of docs/pipeline.md, from the first job to the last, against a real server with simulated printers."""

import json
import re

import pytest
from pipeline_document import settings
from pipeline_runners import QUICK, GitHub, GitLab
from pipeline_world import World

RUNNERS = {"github": GitHub, "gitlab": GitLab}
DONE = {"build": 0, "canary": 0, "stable": 0}


def start(name, folder, *printers):
    """A runner, and a server that has 1.4.0 and printers that run it. Jobs have keys as narrow as the document says, but
    canary has none, and comes with a token."""
    world = World(folder / "world", oidc=settings(name))
    try:
        world.release("1.4.0", ["canary", "stable"])
        for channel, count, *more in printers:
            world.printers(channel, count, *more)
        runner = RUNNERS[name](world, folder / "runner")
        for job in ("ota-stable", "ota-rollback"):
            runner.keys[job] = runner.secret(world.key("release", ["canary", "stable"]))
    except BaseException:
        world.stop()
        raise
    return world, runner


@pytest.fixture(scope="module", params=RUNNERS)
def started(request, tmp_path_factory):
    """For the tests of a runner, which leave each other printers of whatever version."""
    name = request.param
    world, runner = start(name, tmp_path_factory.mktemp(name))
    try:
        # What runs 1.4.0 was brought there by a rollout, as everywhere but in a test.
        for channel, count, mode in (("canary", 5, "polite"), ("stable", 8, "device")):
            world.printers(channel, count, "--mode", mode, runs="1.3.0")
            world.bring("1.4.0", channel)
        yield name, world, runner
    finally:
        world.stop()


def passed(results):
    return {job: code for job, code in results.items() if code is not None}


def by_hand(runner, version, **inputs):
    """The job that brings printers back."""
    if isinstance(runner, GitHub):
        return runner.pipeline(version, version=version, **inputs)["back"]
    names = {"action": "ACTION", "channels": "CHANNELS", "to_version": "TO_VERSION"}
    return runner.pipeline(version, only=["back"], **{names[name]: text for name, text in inputs.items()})["back"]


def test_a_release_reaches_every_printer_and_comes_back(started):
    name, world, runner = started
    assert passed(runner.pipeline("1.5.0")) == DONE, runner.output
    assert world.versions("canary") == {"1.5.0": 5}
    assert world.versions("stable") == {"1.5.0": 8}
    [built] = runner.artifacts.values()
    image = built["firmware.bin.sha256"].decode().split()[0]
    for channel in ("canary", "stable"):
        assert world.get(f"/api/firmware/1.5.0?channel={channel}")["sha256_checksum"] == image
    rollouts = world.rollouts("1.5.0")
    assert [(rollout["target_channels"], rollout["status"]) for rollout in rollouts] == [
        (["stable"], "completed"),
        (["canary"], "completed"),
    ]
    assert rollouts[0]["step"] == 2, "stable went in steps"
    assert "subject" in rollouts[1]["created_by"], "canary came with a token"
    assert runner.calls.read_text().count("/api/firmware/upload") == 1, "the image was sent once"

    # All of it once more, and one job alone: nothing new.
    assert passed(runner.pipeline("1.5.0")) == DONE, runner.output
    assert passed(runner.pipeline("1.5.0", only=["stable"])) == DONE, runner.output
    assert len(world.rollouts("1.5.0")) == 2

    # Another image under the same version stops before anything moves.
    runner.builds(seed=2)
    results = runner.pipeline("1.5.0")
    assert passed(results) == {"build": 0, "canary": 1}, results
    assert "1.5.0 on canary is another image" in runner.output["canary"]
    assert world.get("/api/firmware/1.5.0?channel=canary")["sha256_checksum"] == image
    runner.builds(seed=1)

    # Back, by both ways, and twice.
    for _ in range(2):
        if name == "github":
            assert by_hand(runner, "1.5.0") == 0, runner.output
        else:
            assert by_hand(runner, "1.5.0", action="replace", to_version="1.4.0") == 0, runner.output
        assert world.versions("canary") == {"1.4.0": 5}
        assert world.versions("stable") == {"1.4.0": 8}
        assert len(world.rollouts()) == 6, "1.4.0, 1.5.0 and what undid it, on two channels"
    assert all(rollout["status"] == "cancelled" for rollout in world.rollouts("1.5.0"))
    assert world.get("/api/firmware/1.5.0?channel=stable")["deprecated_at"]

    # Whoever runs the old pipeline again does not undo that.
    results = runner.pipeline("1.5.0")
    assert passed(results) == {"build": 0, "canary": 1}, results
    assert "was withdrawn" in runner.output["canary"]


@pytest.fixture
def failing(tmp_path):
    world, runner = start("github", tmp_path, ("canary", 5, "--fail-rate", "1"), ("stable", 3))
    yield world, runner
    world.stop()


def test_printers_that_fail_pause_the_rollout_and_stable_is_not_touched(failing):
    world, runner = failing
    results = runner.pipeline("1.5.0")
    assert passed(results) == {"build": 0, "canary": 1}, runner.output
    said = runner.output["canary"]
    assert "is paused: failures, " in said and "above its failure_threshold" in said, said
    named = re.findall(r"^  printer (\S+): reported, Update failed: ", said, re.M)
    failing = {printer["printer_id"] for printer in world.get("/api/printers?channel=canary")["printers"]}
    assert named and set(named) <= failing and len(set(named)) == len(named), said
    assert world.versions("stable") == {"1.4.0": 3}
    assert [rollout["target_channels"] for rollout in world.rollouts("1.5.0")] == [["canary"]]
    # Again: the same answer at once, and nothing is woken up.
    assert runner.pipeline("1.5.0", only=["canary"])["canary"] == 1
    assert world.rollouts("1.5.0")[0]["status"] == "paused"

    # The same printers without a threshold: the job fails all the same, unless so many may fail.
    runner.build(seed=3)
    plan = {"OTA_VERSION": "1.6.0", "OTA_PLAN": '{"rollout_type": "immediate", "max_attempts": 1}'}
    plan["OTA_KEY"] = runner.keys["ota-stable"]
    assert runner.ota("upload", "canary", **plan)[0] == 0
    assert runner.ota("rollout", "canary", **plan)[0] == 0
    code, said = runner.ota("wait", "canary", **plan)
    assert code == 1 and "more than 5 % of the printers failed for good" in said, said
    code, said = runner.ota("wait", "canary", OTA_MAX_FAILED="100", **plan)
    assert code == 0 and "5 failed" in said, said
    code, said = runner.ota("rollback", "canary", **plan)
    assert code == 0 and "it had reached nobody" in said, said


def test_a_token_opens_what_the_document_says_and_nothing_beside_it(started):
    name, world, runner = started
    runner.build(seed=1)
    subject = runner.SUBJECT.format("ota-stable")
    job = {"OTA_VERSION": "1.7.0", "OTA_ID_TOKEN": world.issuer.token(world.url, sub=subject)}
    assert runner.ota("upload", "stable", **job)[0] == 0
    code, said = runner.ota("claims", **job)
    assert code == 0 and json.loads(said)["sub"] == subject
    for other in (subject.replace("printer", "printers"), subject[: subject.rindex(":")], f"{subject}x"):
        token = world.issuer.token(world.url, sub=other)
        code, said = runner.ota("upload", "beta", **job | {"OTA_ID_TOKEN": token})
        assert code == 1 and ": 403: " in said and "no value of the claim `sub` has a role" in said, said
    token = world.issuer.token("https://other.example.com", sub=subject)
    code, said = runner.ota("upload", "beta", **job | {"OTA_ID_TOKEN": token})
    assert code == 1 and "it is not made for the audience" in said, said
    if name == "github":
        # A job without the permission has no token.
        code, said = runner.ota("upload", "beta", OTA_VERSION="1.7.0", ACTIONS_ID_TOKEN_REQUEST_URL=world.issuer.request_url,
                                ACTIONS_ID_TOKEN_REQUEST_TOKEN="none")
        assert code == 1 and "GitHub gives this job no token" in said, said


def test_jobs_that_are_cut_off_go_on_where_they_were(started):
    name, world, runner = started
    cuts = {
        # After the upload, and while it waits.
        "github": [{"canary": r"is on canary"}, {"canary": r"rollout \d+ is active"}],
        # Between the beginning and the wait.
        "gitlab": [{"stable": r"rollout \d+ of 1.6.0 to stable"}],
    }
    runner.variables["OTA_CANARY_PLAN"] = QUICK["OTA_CANARY_PLAN"].replace('"1s"', '"3s"')
    for number, cut in enumerate(cuts[name]):
        results = runner.pipeline("1.6.0", only=["canary", "stable"] if number else None, cut=cut)
        assert results[next(iter(cut))] == -9, runner.output
    assert passed(runner.pipeline("1.6.0", only=["canary", "stable"])) == DONE, runner.output
    assert world.versions("canary") == {"1.6.0": 5}
    assert world.versions("stable") == {"1.6.0": 8}
    assert len(world.rollouts("1.6.0")) == 2
