"""The steps of ci/ota.sh one by one, where things go wrong."""

import datetime
import http.server
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request

import pipeline_document as document
import pytest

PLAN = '{"rollout_type": "immediate"}'


@pytest.fixture
def version(desk):
    """A version of its own for a test, higher than all before it."""
    desk.runner.build(seed=7)
    return next(desk.versions)


@pytest.fixture
def ota(desk, version):
    def step(*words, **variables):
        variables = {"OTA_KEY": desk.admin, "OTA_VERSION": version, "OTA_PLAN": PLAN} | variables
        return desk.runner.ota(*words, **variables)

    return step


def test_a_wrong_key_is_told_in_the_server_s_words(desk, ota):
    wrong = desk.runner.secret("pmk_000000000000_5c1fe0a4b1d2c3e4f5061728394a5b6c7d8e9f00112233445566778899aabbcc")
    for step in (["upload", "canary"], ["promote", "canary", "stable"], ["rollout", "canary"], ["wait", "canary"]):
        code, said = ota(*step, OTA_KEY=wrong)
        assert code == 1 and ": 401: The key is not valid; send" in said, said
    code, said = ota("upload", "canary", OTA_KEY="")
    assert code == 1 and "OTA_KEY is empty" in said


def test_a_key_for_canary_does_not_reach_stable(desk, version, ota):
    narrow = desk.runner.secret(desk.key("release", ["canary"]))
    assert ota("upload", "canary", OTA_KEY=narrow)[0] == 0
    code, said = ota("promote", "canary", "stable", OTA_KEY=narrow)
    assert code == 1 and ": 403: " in said, said
    code, said = ota("upload", "stable", OTA_KEY=narrow)
    assert code == 1 and ": 403: " in said, said
    assert ota("upload", "canary", OTA_KEY=desk.runner.secret(desk.key("viewer", ["canary"])))[0] == 1


def test_another_image_under_the_same_version_is_refused(desk, version, ota):
    assert ota("upload", "canary")[0] == 0
    assert ota("upload", "canary")[0] == 0
    desk.runner.build(seed=8)
    code, said = ota("upload", "canary")
    assert code == 1 and f"{version} on canary is another image" in said, said
    # And one that is not what was built leaves nothing behind.
    image = desk.runner.folder / "desk/firmware.bin"
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    code, said = ota("upload", "beta")
    assert code == 1 and "is not what was built" in said
    assert desk.rest("GET", f"/api/firmware/{version}?channel=beta")[0] == 404


def test_time_is_up_with_2_and_the_step_goes_on(desk, version, ota):
    assert ota("upload", "canary")[0] == 0
    assert ota("rollout", "canary", OTA_PLAN='{"rollout_type": "immediate", "start": false}')[0] == 0
    code, said = ota("wait", "canary", OTA_WAIT_SECONDS="1")
    assert code == 2, said
    assert "is pending" in said and "after 1 seconds the outcome of rollout" in said
    [rollout] = desk.rollouts(version)
    # An operator's pause is waited for, too.
    for state in ("active", "paused"):
        assert desk.rest("PATCH", f"/api/rollouts/{rollout['number']}", {"status": state})[0] == 200
    assert ota("wait", "canary", OTA_WAIT_SECONDS="1")[0] in (0, 2)
    assert desk.rest("PATCH", f"/api/rollouts/{rollout['number']}", {"status": "active"})[0] == 200
    code, said = ota("wait", "canary")
    assert code == 0, said
    assert re.search(r"6 of 6 printers proved it, 0 failed", said), said


def test_a_rollout_without_printers_says_so(desk, version, ota):
    assert ota("upload", "beta")[0] == 0
    assert ota("rollout", "beta")[0] == 0
    code, said = ota("wait", "beta", OTA_WAIT_SECONDS="0")
    assert code == 2 and "It has no printers" in said, said


def test_what_somebody_cancelled_stays_cancelled(desk, version, ota):
    assert ota("upload", "canary")[0] == 0
    assert ota("rollout", "canary", OTA_PLAN='{"rollout_type": "immediate", "start": false}')[0] == 0
    [rollout] = desk.rollouts(version)
    assert desk.rest("PATCH", f"/api/rollouts/{rollout['number']}", {"status": "cancelled"})[0] == 200
    code, said = ota("rollout", "canary")
    assert code == 0 and "is cancelled" in said
    code, said = ota("wait", "canary")
    assert code == 1 and f"rollout {rollout['number']} is cancelled" in said, said
    assert len(desk.rollouts(version)) == 1


def test_a_plan_with_a_mistake_is_told_by_its_field(desk, ota):
    assert ota("upload", "canary")[0] == 0
    code, said = ota("rollout", "canary", OTA_PLAN='{"rollout_type": "gradually"}')
    assert code == 1 and ": 422: " in said and "rollout_type" in said, said


def test_the_plans_of_the_document_are_plans(desk, version, ota):
    assert ota("upload", "stable")[0] == 0
    for name in ("OTA_CANARY_PLAN", "OTA_STABLE_PLAN"):
        plan = json.loads(document.GITLAB["variables"][name])
        plan |= {"firmware_version": version, "target": {"channels": ["stable"]}}
        status, answer = desk.rest("POST", "/api/rollouts?dry_run=true", plan)
        assert status == 200, answer
        code, said = ota("rollout", "stable", OTA_PLAN=document.GITLAB["variables"][name])
        assert code == 0, said


def test_somebody_else_approves(desk, version, ota):
    maker = desk.runner.secret(desk.key("release", ["canary"]))
    assert ota("upload", "canary")[0] == 0
    assert ota("rollout", "canary", OTA_KEY=maker, OTA_PLAN='{"rollout_type": "immediate", "requires_approval": true}')[0] == 0
    code, said = ota("approve", "canary", OTA_KEY=maker)
    assert code == 1 and "waits for somebody else" in said, said
    code, said = ota("wait", "canary", OTA_WAIT_SECONDS="0")
    assert code == 2 and "It waits for approval" in said, said
    other = desk.runner.secret(desk.key("operator", ["canary"]))
    for _ in range(2):
        code, said = ota("approve", "canary", OTA_KEY=other)
        assert code == 0, said
    assert ota("wait", "canary")[0] == 0


class Stumbling(http.server.BaseHTTPRequestHandler):
    """Passes everything on, but each request comes to nothing the first time: 503, and for the first rollout an answer
    that gets lost."""

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen[self.command, self.path] = seen = self.server.seen.get((self.command, self.path), 0) + 1
        loses = self.command == "POST" and self.path == "/api/rollouts"
        status, answer = 503, b'{"title": "away"}'
        if seen > 1 or loses:
            headers = {name: self.headers[name] for name in ("X-API-Key", "Content-Type") if name in self.headers}
            request = urllib.request.Request(self.server.url + self.path, body or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=20) as got:
                    status, answer = got.status, got.read()
            except urllib.error.HTTPError as refusal:
                status, answer = refusal.code, refusal.read()
        if loses:
            status, answer = 502, b"<html>bad gateway</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = pass_on

    def log_message(self, *_):
        pass


def test_a_server_that_is_away_for_a_moment_changes_nothing(desk, version, ota):
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stumbling)
    proxy.url, proxy.seen = desk.url, {}
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{proxy.server_port}"
        for words in (["upload", "canary"], ["rollout", "canary"], ["wait", "canary"]):
            code, said = ota(*words, OTA_URL=url)
            assert code == 0, said
    finally:
        proxy.shutdown()
        proxy.server_close()
    assert "no answer about rollout" in said and "(status 503), asking again" in said
    assert proxy.seen["POST", "/api/rollouts"] == 1, "the lost answer was not asked for twice"
    assert len(desk.rollouts(version)) == 1


def test_without_a_server_the_step_ends(ota):
    code, said = ota("wait", "canary", OTA_URL="http://127.0.0.1:9", OTA_KEY="k", OTA_RETRIES="1")
    assert code == 1 and "no answer from http://127.0.0.1:9" in said, said


def test_the_commands_of_the_document_work(desk, version, ota):
    assert ota("upload", "canary")[0] == 0
    assert ota("rollout", "canary", OTA_PLAN='{"rollout_type": "immediate", "requires_approval": true}')[0] == 0
    [rollout] = desk.rollouts(version)
    operator = desk.key("operator", ["canary"])
    variables = {"OTA_URL": desk.url, "ADMIN_KEY": desk.admin, "MY_KEY": operator, "ROLLOUT": str(rollout["number"])}
    outputs = []
    for script in document.COMMANDS:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={"PATH": "/usr/bin:/bin"} | variables,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    keys, approved, paused = outputs
    canary, stable = keys.split()
    assert desk.rest("GET", "/api/me", key=canary)[1]["scope"]["channels"] == ["canary"]
    assert desk.rest("GET", "/api/me", key=stable)[1]["role"] == "release"
    made = desk.get("/api/keys?limit=500")["keys"]
    [kept] = [key for key in made if key["name"] == "pipeline: canary"]
    left = datetime.datetime.fromisoformat(kept["expires_at"]) - datetime.datetime.now(datetime.UTC)
    assert 179 <= left.days <= 180
    assert json.loads(approved)["approval"] == "approved"
    assert json.loads(paused)["status"] == "paused"
