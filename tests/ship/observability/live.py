"""A real server for a test: `paperminder-ota dev` in a folder of its own, and what is needed to talk to it."""

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

from sources import ROOT

# Long for a machine that is busy; nothing waits longer than it must.
PATIENCE = 90


def until(what, condition):
    """What `condition` says as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


def get(url, data=None, headers=None):
    request = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def end(process):
    """SIGTERM, and SIGKILL for what does not heed it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def binary():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    found = target / "debug/paperminder-ota"
    assert found.exists(), f"{found} is not there: run 'cargo build'"
    return str(found)


class Server:
    """With keys, and with what settings it is given."""

    def __init__(self, program, folder, **settings):
        self.program, self.folder = program, folder
        self.key = secrets.token_urlsafe(32)
        (folder / "key").write_text(self.key)
        own = {
            "AUTH": "on",
            "BOOTSTRAP_ADMIN_KEY_FILE": str(folder / "key"),
            "LISTEN_ADDR": "127.0.0.1:0",
            "INTERNAL_ADDR": "127.0.0.1:0",
            "WRONG_KEYS_PER_ADDRESS": "1",
            "GC_EVERY_SECONDS": "1",
            "RETRY_BACKOFF_SECONDS": "1",
        }
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen([program, "dev"], cwd=folder, env=kept | own | settings, stdout=self.log, stderr=self.log)
        try:
            text = until("the server's addresses", self.addresses)
        except AssertionError as late:
            self.stop()
            raise AssertionError(f"{late}\n{(folder / 'log').read_text()[-3000:]}") from None
        self.base, self.internal = text

    def addresses(self):
        assert self.process.poll() is None, f"the server ended: {(self.folder / 'log').read_text()[-3000:]}"
        text = (self.folder / "log").read_text()
        rest = re.search(r"REST\s+(http://[^/\s]+)/", text)
        health = re.search(r"Health\s+(http://[^/\s]+)/readyz", text)
        return rest and health and (rest[1], health[1])

    def rest(self, path, body=None, headers=None, key=None):
        own = {"X-API-Key": key or self.key}
        data = body
        if isinstance(body, dict):
            data = json.dumps(body).encode()
            own["Content-Type"] = "application/json"
        try:
            return get(self.base + path, data, own | (headers or {}))
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(f"{path}: {refused.code} {refused.read().decode()}") from None

    def release(self, version):
        image = subprocess.run([self.program, "image"], capture_output=True, check=True, timeout=30).stdout
        edge = secrets.token_hex(16)
        fields = {"version": version, "channel": "stable"}
        body = b"".join(
            f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        body += f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'.encode()
        body += image + f"\r\n--{edge}--\r\n".encode()
        self.rest("/api/firmware/upload", body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def printers(self, *options):
        """A few simulated printers, until they are told to stop."""
        server = self.base.replace("http", "ws", 1)
        return subprocess.Popen(
            [self.program, "simulate", "--server", server, "--reboot-ms", "200", *options],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def metrics(self):
        return get(self.internal + "/metrics")

    def stop(self):
        end(self.process)
        self.log.close()
