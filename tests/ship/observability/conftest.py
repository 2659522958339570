"""A real server that has seen a release, a rollout and a few printers, and a real Prometheus that looks at it."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse

import pytest

from live import Server, binary, end, free_port, get, until
from sources import ALERTS


@pytest.fixture(scope="session")
def program():
    return binary()


@pytest.fixture(scope="session")
def server(program, tmp_path_factory):
    one = Server(program, tmp_path_factory.mktemp("server"))
    fleets = []
    try:
        # Each of these makes a metric appear that is there after its event only.
        one.release("1.5.0")
        fleets.append(one.printers("-n", "4", "--user", "good"))
        fleets.append(one.printers("-n", "2", "--user", "bad", "--rollback-rate", "1"))
        fleets.append(one.printers("-n", "1", "--user", "no", "--decline-rate", "1"))
        until("seven printers", lambda: json.loads(one.rest("/api/printers?online=true"))["total"] == 7)
        rollout = {"firmware_version": "1.5.0", "target": {"all": True}, "rollout_type": "immediate", "max_attempts": 2}
        one.rest("/api/rollouts", rollout)
        until("outcomes of every kind", lambda: counts(one))
        for _ in range(2):
            with pytest.raises(AssertionError, match="401|429"):
                one.rest("/api/printers", key="pmk_wrong_wrong")
        yield one
    finally:
        for fleet in fleets:
            end(fleet)
        one.stop()


def counts(server):
    rollout = json.loads(server.rest("/api/rollouts/1"))
    return rollout["confirmed_count"] == 4 and rollout["failed_count"] == 2 and rollout["declined_count"] == 1


@pytest.fixture(scope="session")
def prometheus(server, tmp_path_factory):
    """Prometheus, with the rules, that has scraped the server twice. A function that asks its API."""
    assert shutil.which("prometheus"), "Prometheus is not installed: run 'scripts/setup test'"
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "paperminder-ota",
                "static_configs": [{"targets": [server.internal.removeprefix("http://")], "labels": {"namespace": "test"}}],
            }
        ],
    }
    # JSON is YAML.
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    port = free_port()
    log = open(folder / "log", "w")
    process = subprocess.Popen(
        [
            "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        ],
        cwd=folder, stdout=log, stderr=log,
    )

    def ask(path, **parameters):
        assert process.poll() is None, (folder / "log").read_text()
        query = urllib.parse.urlencode(parameters)
        return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}?{query}"))["data"]

    def scraped():
        try:
            result = ask("query", query='count_over_time(up{job="paperminder-ota"}[1m]) >= 3')["result"]
        except (OSError, urllib.error.URLError):
            return False
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        return result and all(rule["health"] != "unknown" for rule in rules)

    try:
        until("two scrapes", scraped)
        yield ask
    finally:
        end(process)
        log.close()
