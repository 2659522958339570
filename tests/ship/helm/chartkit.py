"""Rendering the chart with Helm's own engine, and a real server for what the proxies are tried on.

Not in conftest.py: several folders have one, and `import conftest` takes the first.
"""

import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import helm_python
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "paperminder-ota"
EXAMPLES = ROOT / "helm" / "examples"
NEEDED = {"database": {"host": "db.example.com", "existingSecret": "ota-database"}, "s3": {"bucket": "acme-firmware"}}


def load(path):
    return yaml.safe_load(Path(path).read_text())


def merged(base, more):
    """What Helm does with several `-f`."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}


def with_needed(values=None):
    return merged(NEEDED, values or {})


# Value sets: those of ci/ stand alone, those of the examples come on top of the three that are needed.
VALUE_SETS = {path.name.removesuffix("-values.yaml"): load(path) for path in sorted(CHART.glob("ci/*-values.yaml"))}
EXAMPLE_SETS = {
    f"{path.parent.name}/{path.stem}": with_needed(load(path))
    for path in sorted(EXAMPLES.glob("*/values*.yaml"))
}
ALL_SETS = {**VALUE_SETS, **EXAMPLE_SETS}


@functools.cache
def chart():
    return helm_python.Chart.load(CHART)


@functools.cache
def _files(values, options):
    return chart().render(json.loads(values), **dict(json.loads(options)))


def _key(values, options):
    options = {"name": "ota", "namespace": "devices", **options}
    return json.dumps(with_needed() if values is None else values, sort_keys=True), json.dumps(options, sort_keys=True)


def files(values=None, **options):
    """Rendered text by the template's name, without the chart's."""
    return {name.split("/", 1)[1]: text for name, text in _files(*_key(values, options)).items()}


@functools.cache
def _objects(values, options):
    out = []
    for name, text in _files(values, options).items():
        if not name.endswith(".txt"):
            out += [thing for thing in yaml.load_all(text, yaml.CSafeLoader) if thing]
    return json.dumps(out)


def render(values=None, **options):
    """All objects of a release, a copy for each who asks."""
    return json.loads(_objects(*_key(values, options)))


def one(objects, kind, name=None):
    """The object of a kind, the only one of that name's ending."""
    found = [
        thing for thing in objects
        if thing["kind"] == kind and (name is None or thing["metadata"]["name"].endswith(name))
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def pod_specs(objects):
    """What runs: (owner, pod's spec)."""
    for thing in objects:
        spec = thing.get("spec", {})
        if thing["kind"] == "Pod":
            yield thing, spec
        elif thing["kind"] in ("Deployment", "Job"):
            yield thing, spec["template"]["spec"]
        elif thing["kind"] == "CronJob":
            yield thing, spec["jobTemplate"]["spec"]["template"]["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def refused(values):
    """The sentence with which a render fails."""
    with pytest.raises(helm_python.HelmError) as caught:
        files(values)
    return str(caught.value)


@functools.cache
def server_settings():
    """The settings that the server knows, from its documentation."""
    table = (ROOT / "README.md").read_text().split("\n### Configuration\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([A-Z0-9_]+)` \|", table, re.M))


def program():
    path = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "paperminder-ota"
    assert path.exists(), f"{path} is not there: run 'cargo build'"
    return path


def tool(name):
    """A program of the system or of this Python's environment."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))
    assert path, f"{name} is not there: run 'scripts/setup test'"
    return path


# A thousand sockets are more than a shell's usual limit.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65536, most))


class Process:
    """Something that is started for a test, and ended with it, by its id."""

    def __init__(self, *command, cwd=None, **environment):
        command = [str(part) for part in command]
        self.name = Path(command[0]).name
        self.lines = []
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        # Read to its end: a pipe that nobody empties holds up who writes.
        self.reader = threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True)
        self.reader.start()

    def text(self):
        return "".join(self.lines)

    def wait_for(self, ready, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if found := ready(self):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{self.name} did not start: {self.text()[-2000:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.reader.join(10)


class Server:
    """`paperminder-ota dev` in a folder of its own, with a key."""

    def __init__(self, folder):
        self.key = "a-key-for-this-test-alone-0123456789"
        self.key_file = folder / "key"
        self.key_file.write_text(self.key)
        self.process = Process(
            program(), "dev", cwd=folder, AUTH="on", BOOTSTRAP_ADMIN_KEY_FILE=str(self.key_file), LISTEN_ADDR="127.0.0.1:0",
            INTERNAL_ADDR="127.0.0.1:0", RUST_LOG="warn", DELIVERY="link", TRUSTED_PROXIES="127.0.0.0/8",
        )
        found = self.process.wait_for(lambda process: re.search(r"REST +http://(127\.0\.0\.1):(\d+)/", process.text()), 60)
        self.port = int(found[2])
        self.database = re.search(r"psql '([^']+)'", self.process.text())[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def curl(self, *arguments, url=None):
        done = subprocess.run(
            [tool("curl"), "-sS", "--max-time", "180", "-H", f"X-API-Key: {self.key}", *arguments],
            capture_output=True, text=True, timeout=200,
        )
        assert done.returncode == 0, f"curl {arguments}: {done.stderr}"
        return done.stdout
