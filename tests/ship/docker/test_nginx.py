"""The nginx of the profile `replicas`: compose/nginx.conf in a real nginx, before a real server."""

import http.client
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from live import Server, end, free_port, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
CONF = (ROOT / "docker/compose/nginx.conf").read_text()


class Front:
    """nginx with the file as it is, but for its port, its folders, and where the replicas are."""

    def __init__(self, folder, port, *replicas):
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        assert program, "nginx is not installed: run 'scripts/setup test'"
        text, count = re.subn(r"server replica:8000 ([^;]*);", lambda found: "\n".join(f"server {one} {found[1]};" for one in replicas), CONF)
        assert count == 1
        text = text.replace("/tmp/", f"{folder}/")
        for old, new in (("listen 8080;", f"listen 127.0.0.1:{port};"), ("/dev/stderr", f"{folder}/error"), ("/dev/stdout", f"{folder}/access")):
            assert old in text
            text = text.replace(old, new)
        # Each worker counts for itself.
        text = text.replace("worker_processes auto;", "worker_processes 1;")
        # Its workers would be another user when root starts it, and this folder is root's.
        if os.geteuid() == 0:
            text = "user root;\n" + text
        (folder / "nginx.conf").write_text(text)
        done = subprocess.run([program, "-t", "-q", "-c", folder / "nginx.conf"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        self.folder, self.port = folder, port
        self.process = subprocess.Popen([program, "-c", folder / "nginx.conf", "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        until("nginx", self.listens)

    def listens(self):
        assert self.process.poll() is None, (self.folder / "error").read_text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def stop(self):
        end(self.process)


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers everything with the status of its server, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        if self.path == "/ws/stays" and self.server.status == 200:
            self.server.end.wait(30)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = self.server.name.encode()
        self.send_response(self.server.status)
        if self.server.status == 503:
            self.send_header("Retry-After", "4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def replica():
    started = []

    def start(name, status):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
        server.name, server.status, server.asked, server.daemon_threads = name, status, [], True
        server.end = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.end.set()
        server.shutdown()
        server.server_close()


def address(server):
    return f"127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def front(tmp_path_factory):
    started = []

    def start(*replicas):
        one = Front(tmp_path_factory.mktemp("nginx"), free_port(), *replicas)
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


def test_a_full_replica_costs_nobody_anything(front, replica):
    full, roomy = replica("full", 503), replica("roomy", 200)
    nginx = front(address(full), address(roomy))
    answers = [nginx.ask("GET", "/ws/u", headers={"Connection": "Upgrade", "Upgrade": "websocket"}) for _ in range(12)]
    assert {(answer.status, body) for answer, body in answers} == {(200, b"roomy")}
    assert full.asked, "it was tried first now and then"
    asked = {name.lower(): value for name, value in full.asked[0][2].items()}
    assert asked["upgrade"] == "websocket" and asked["connection"] == "upgrade"
    assert asked["x-forwarded-for"] == "127.0.0.1" and asked["host"].endswith(str(nginx.port))


def test_replicas_are_taken_in_turn(front, replica):
    """By the fewest connections, a full replica, which refuses at once, would be the first choice for everybody."""
    busy, idle = replica("busy", 200), replica("idle", 503)
    nginx = front(address(busy), address(idle))
    sockets = [threading.Thread(target=nginx.ask, args=("GET", "/ws/stays"), daemon=True) for _ in range(2)]
    for socket_ in sockets:
        socket_.start()
    until("two sockets", lambda: [asked[1] for asked in busy.asked] == ["/ws/stays"] * 2)
    idle.status = 200
    answers = [nginx.ask("GET", "/api/rollouts")[1] for _ in range(12)]
    assert 4 <= answers.count(b"busy") <= 8, answers
    busy.end.set()
    for socket_ in sockets:
        socket_.join(10)


def test_when_all_are_full_their_503_comes_through(front, replica):
    one, two = replica("one", 503), replica("two", 503)
    nginx = front(address(one), address(two))
    answer, body = nginx.ask("GET", "/ws/u")
    assert answer.status == 503 and answer.headers["Retry-After"] == "4" and body in (b"one", b"two")
    assert one.asked and two.asked


def test_a_replica_that_is_gone_is_passed_over(front, replica):
    alive = replica("alive", 200)
    nginx = front(f"127.0.0.1:{free_port()}", address(alive))
    assert {nginx.ask("GET", "/api/rollouts")[1] for _ in range(8)} == {b"alive"}


def test_what_changes_something_is_sent_once(front, replica):
    one, two = replica("one", 503), replica("two", 503)
    nginx = front(address(one), address(two))
    answer, _ = nginx.ask("POST", "/api/rollouts", b"{}")
    assert answer.status == 503
    assert len(one.asked) + len(two.asked) == 1


@pytest.fixture(scope="module")
def behind(program, tmp_path_factory):
    """A real server behind nginx, which hands out links that lead through nginx."""
    port = free_port()
    settings = {"DELIVERY": "link", "BASE_URL": f"http://127.0.0.1:{port}", "TRUSTED_PROXIES": "127.0.0.0/8"}
    server = Server(program, tmp_path_factory.mktemp("server"), **settings)
    nginx = None
    try:
        nginx = Front(tmp_path_factory.mktemp("nginx"), port, server.base.removeprefix("http://"))
        yield server, nginx
    finally:
        if nginx:
            nginx.stop()
        server.stop()


def test_printers_are_updated_through_it(behind, program):
    """Sockets, and downloads by HTTP/1.0 as unchanged devices make them, on one way."""
    server, nginx = behind
    server.release("1.5.0")
    server.rest("/api/rollouts", {"firmware_version": "1.5.0", "target": {"all": True}, "rollout_type": "immediate"})
    done = subprocess.run(
        [program, "simulate", "--server", f"ws://127.0.0.1:{nginx.port}", "-n", "3", "--mode", "device", "--reboot-ms", "200",
         "--until-version", "1.5.0", "--duration", "60s"],
        capture_output=True, text=True, timeout=90, cwd=server.folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = until("the log's lines", lambda: (lines := (nginx.folder / "access").read_text()).count("/d/") >= 3 and lines)
    assert '"GET /ws/demo" 101' in log
    # A link opens an image for whoever has it.
    assert set(re.findall(r'"GET (/d/[^"]*)" (\d+)', log)) == {("/d/-", "200")}
    assert server.metrics().count("paperminder_link_downloads_total 3") == 1


def test_an_upload_is_neither_kept_nor_cut(behind):
    """Larger than nginx's own limit of 1 MiB; the refusal is the server's, which read it."""
    server, nginx = behind
    edge = "edge"
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="version"\r\n\r\n9.9.9\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'
    ).encode() + os.urandom(3 << 20) + f"\r\n--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}", "X-API-Key": server.key}
    answer, said = nginx.ask("POST", "/api/firmware/upload", body, headers)
    assert answer.headers["Content-Type"] == "application/problem+json" and answer.status == 422, said


def test_events_come_as_they_happen(behind):
    server, nginx = behind
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as one:
        one.sendall(f"GET /api/events HTTP/1.1\r\nHost: ota\r\nX-API-Key: {server.key}\r\n\r\n".encode())
        began, got = time.monotonic(), b""
        while b"retry:" not in got:
            piece = one.recv(4096)
            assert piece, got
            got += piece
        assert time.monotonic() - began < 5


def test_addresses_are_those_of_the_clients(behind):
    server, nginx = behind
    nginx.ask("GET", "/api/rollouts", headers={"X-API-Key": server.key, "X-Forwarded-For": "203.0.113.7"})
    # nginx adds 127.0.0.1, which is a trusted proxy; the address before it is the client's.
    until("the client's address in the log", lambda: "203.0.113.7" in (server.folder / "log").read_text())


def block(name):
    return re.search(rf"location {re.escape(name)} \{{(.*?)\n        \}}", CONF, re.S)[1]


def test_long_things_may_be_long():
    """What no test can wait for: nginx' 60 seconds are not enough for these."""
    assert "proxy_read_timeout 1h;" in block("/ws/") and "proxy_send_timeout 1h;" in block("/ws/")
    assert "proxy_read_timeout 1h;" in block("= /api/events")
    assert "proxy_read_timeout 15m;" in block("~ ^/api/firmware/(upload|uploads)")
    for place in ("/ws/", "= /api/events", "/d/"):
        assert "proxy_buffering off;" in block(place), place
    assert "proxy_request_buffering off;" in block("~ ^/api/firmware/(upload|uploads)")
