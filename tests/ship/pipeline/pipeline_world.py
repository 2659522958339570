"""What a pipeline meets: a real server of `paperminder-ota dev`, with keys and an issuer of tokens, and simulated printers."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request

from pipeline_issuer import Issuer

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Builds come from a fixed commit elsewhere; a test wants another image at will.
SIZE = "20000"


def program():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    path = target / "debug" / "paperminder-ota"
    assert path.exists(), f"{path} is not there: run 'cargo build'"
    return path


def image(seed):
    return subprocess.run(
        [program(), "image", "--seed", str(seed), "--size", SIZE], check=True, capture_output=True, timeout=20
    ).stdout


def end(process):
    """Ends one process that we started."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)


class World:
    """A server in a folder of its own, and everything that was started for a test."""

    def __init__(self, folder, oidc=None):
        self.folder = folder
        folder.mkdir(parents=True)
        self.ends = contextlib.ExitStack()
        self.issuer = Issuer()
        self.ends.callback(self.issuer.stop)
        self.admin = secrets.token_urlsafe(32)
        (folder / "key").write_text(self.admin + "\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTA_", "OIDC_", "AWS_"))
        } | {
            "AUTH": "on",
            "BOOTSTRAP_ADMIN_KEY_FILE": str(folder / "key"),
            "LISTEN_ADDR": f"127.0.0.1:{port}",
            "INTERNAL_ADDR": "127.0.0.1:0",
            "RUST_LOG": "error",
            # A printer that fails is tried again at once.
            "RETRY_BACKOFF_SECONDS": "0",
        }
        if oidc:
            environment |= oidc | {"OIDC_ISSUER": self.issuer.url, "OIDC_AUDIENCE": f"http://127.0.0.1:{port}"}
        log = folder / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                [program(), "dev"], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        self.ends.callback(end, server)
        self.url = None
        until = time.monotonic() + 60
        while not self.url:
            found = re.search(r"^ *REST *(http://[^/]*)/", log.read_text(errors="replace"), re.M)
            self.url = found and found[1]
            if server.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self):
        self.ends.close()

    def rest(self, method, path, body=None, key=None):
        """The status and the answer of a request."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-API-Key": key or self.admin, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read())

    def get(self, path):
        status, answer = self.rest("GET", path)
        assert status == 200, answer
        return answer

    def key(self, role, channels):
        status, made = self.rest(
            "POST",
            "/api/keys",
            {"name": f"{role} {channels}", "role": role, "scope": {"channels": channels, "platforms": ["esp8266"]}},
        )
        assert status == 201, made
        return made["key"]

    def release(self, version, channels, seed=4):
        """A release that printers may go back to."""
        file = self.folder / f"{version}.bin"
        file.write_bytes(image(seed))
        for channel in channels:
            subprocess.run(
                ["curl", "-sS", "--fail-with-body", "-o", "/dev/null", "-H", f"X-API-Key: {self.admin}"]
                + ["-F", f"file=@{file}", "-F", f"version={version}", "-F", f"channel={channel}"]
                + [f"{self.url}/api/firmware/upload"],
                check=True,
                timeout=20,
            )

    def printers(self, channel, count, *more, runs="1.4.0"):
        """Connects printers, which stay until the end."""
        fleet = subprocess.Popen(
            [program(), "simulate", "--server", self.url.replace("http", "ws", 1), "-n", str(count)]
            + ["--user", channel, "--channel", channel, "--version-from", runs]
            + ["--reboot-ms", "100", "--reconnect-ms", "100", "--duration", "120s", *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.ends.callback(end, fleet)
        until = time.monotonic() + 15
        while self.online(channel) < count:
            assert time.monotonic() < until and fleet.poll() is None, "the printers do not come"
            time.sleep(0.1)

    def bring(self, version, channel):
        """Rolls a release out, as a pipeline did long ago."""
        body = {"firmware_version": version, "channel": channel, "rollout_type": "immediate"}
        body["target"] = {"channels": [channel], "platforms": ["esp8266"]}
        status, answer = self.rest("POST", "/api/rollouts", body)
        assert status == 201, answer
        until = time.monotonic() + 20
        while set(self.versions(channel)) != {version}:
            assert time.monotonic() < until, f"the printers do not come to {version}"
            time.sleep(0.1)

    def online(self, channel):
        return self.get(f"/api/printers?channel={channel}&online=true&limit=1")["total"]

    def versions(self, channel):
        """How many printers of a channel run what."""
        counts = {}
        for printer in self.get(f"/api/printers?channel={channel}&limit=500")["printers"]:
            counts[printer["firmware_version"]] = counts.get(printer["firmware_version"], 0) + 1
        return counts

    def rollouts(self, version=None):
        return [
            rollout
            for rollout in self.get("/api/rollouts?limit=500")["rollouts"]
            if version in (None, rollout["firmware_version"])
        ]
