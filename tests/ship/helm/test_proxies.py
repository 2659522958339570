"""Each proxy in front of a real server, with the settings of helm/examples: printers that stay for two minutes, an upload
that takes longer than a minute, downloads by HTTP/1.0, one of them slow. And what the proxies' own defaults would have done."""

import hashlib
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from chartkit import Process, program, tool
from proxies import KINDS, Proxy
from wire import Socket, http10

QUIET = 125
SIZE = 5_000_000
# So that an upload takes 67 seconds: longer than the minute that many defaults allow.
RATE = 75_000
# Above Envoy's own limit of 1,024 for the one; a few for the others.
PRINTERS = {"nginx": 20, "haproxy": 20, "traefik": 20, "envoy": 1100}
# Above Envoy's own limit of 15 seconds for an answer.
SLOW = 20
# Above Envoy's own limit of one second for the end of a connection, below the 8 of a printer.
PAUSE = 4


def upload(url, key_file, image, version):
    """Seconds and status of a throttled upload."""
    began = time.monotonic()
    done = subprocess.run(
        [tool("curl"), "-sS", "--max-time", "120", "--limit-rate", str(RATE), "-w", "\n%{http_code}", "-H", "Expect:",
         "-H", f"X-API-Key: {key_file.read_text()}", "-F", f"file=@{image}", "-F", f"version={version}", "-F", "channel=canary",
         f"{url}/api/firmware/upload"],
        capture_output=True, text=True, timeout=130,
    )
    return SimpleNamespace(
        seconds=time.monotonic() - began, status=done.stdout.rsplit("\n", 1)[-1], body=done.stdout, error=done.stderr)


def report(text):
    """The table with which simulated printers end."""
    return dict(re.findall(r"│ (\w[^│]*?) +(\S+) │", text))


@pytest.fixture(scope="module")
def seen(server, tmp_path_factory):
    """Everything that takes long, at once."""
    folder = tmp_path_factory.mktemp("proxies")
    image = folder / "image.bin"
    image.write_bytes(subprocess.run([program(), "image", "--size", str(SIZE)], capture_output=True, check=True).stdout)
    server.curl("--fail", "-F", f"file=@{image}", "-F", "version=1.5.0", f"{server.url}/api/firmware/upload")
    server.curl(
        "--fail", "--json", '{"firmware_version": "1.5.0", "target": {"user_ids": ["link"]}, "rollout_type": "immediate"}',
        f"{server.url}/api/rollouts")
    started, found = [], {}
    try:
        for kind in KINDS:
            proxy = Proxy(kind, server, folder / kind)
            started.append(proxy)
            fleet = Process(
                program(), "simulate", "--server", proxy.url.replace("http", "ws"), "-n", PRINTERS[kind], "--user", f"quiet-{kind}",
                "--connect-rate", 200, "--duration", f"{QUIET}s")
            started.append(SimpleNamespace(process=fleet))
            found[kind] = SimpleNamespace(proxy=proxy, fleet=fleet)
        bare = {kind: Proxy(kind, server, folder / f"{kind}-bare", ours=False) for kind in ("nginx", "traefik", "envoy")}
        started += bare.values()
        with ThreadPoolExecutor(24) as threads:
            uploads = {
                kind: threads.submit(upload, that.proxy.url, server.key_file, image, f"2.0.{number}")
                for number, (kind, that) in enumerate(found.items())
            }
            cut = threads.submit(upload, bare["traefik"].url, server.key_file, image, "3.0.0")

            def download(port, **how):
                return threads.submit(http10, port, "/api/firmware/download/1.5.0", f"X-API-Key: {server.key}", **how)

            slow = {kind: download(that.proxy.port, slow=SLOW) for kind, that in found.items()}
            paused = {kind: download(that.proxy.port, pause=PAUSE) for kind, that in found.items()}
            # It refuses HTTP/1.0.
            cut_slow = download(bare["envoy"].port, slow=SLOW, version="1.1")
            cut_paused = download(bare["envoy"].port, pause=PAUSE, version="1.1")
            for that in found.values():
                assert that.fleet.process.wait(QUIET + 60) == 0, that.fleet.text()
                that.fleet.reader.join(10)
        for kind, that in found.items():
            that.upload, that.slow, that.paused = uploads[kind].result(), slow[kind].result(), paused[kind].result()
        yield SimpleNamespace(
            **found, bare=bare, cut=cut.result(), slow=cut_slow.result(), paused=cut_paused.result(), image=image, md5=hashlib.md5(image.read_bytes()).hexdigest())
    finally:
        for that in reversed(started):
            that.process.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_quiet_sockets_stay_for_two_minutes(seen, kind):
    said = report(getattr(seen, kind).fleet.text())
    assert (said["Online"], said["Connections"], said["Failed attempts to connect"]) == (str(PRINTERS[kind]),) * 2 + ("0",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_upload_arrives_whole(seen, kind):
    done = getattr(seen, kind).upload
    assert done.status == "201", (done.status, done.body, done.error)
    assert done.seconds > 60 and seen.md5 in done.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_printer_downloads_by_http_1_0(seen, server, kind):
    port = getattr(seen, kind).proxy.port
    status, headers, body = http10(port, "/api/firmware/download/1.5.0", f"X-API-Key: {server.key}")
    assert status.split(" ")[1] == "200", status
    assert headers["content-length"] == str(SIZE)
    assert "transfer-encoding" not in headers and "content-encoding" not in headers
    assert hashlib.md5(body).hexdigest() == seen.md5


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_download_arrives_whole(seen, kind):
    status, headers, body = getattr(seen, kind).slow
    assert status.split(" ")[1] == "200" and hashlib.md5(body).hexdigest() == seen.md5, (status, len(body))


@pytest.mark.parametrize("kind", KINDS)
def test_a_printer_may_pause_shortly_before_the_end(seen, kind):
    status, headers, body = getattr(seen, kind).paused
    assert status.split(" ")[1] == "200" and hashlib.md5(body).hexdigest() == seen.md5, (status, len(body))


@pytest.mark.parametrize("kind", KINDS)
def test_an_offer_and_its_link_go_through(seen, kind):
    port = getattr(seen, kind).proxy.port
    printer = Socket(port, "link")
    try:
        assert printer.status.split(" ")[1] == "101" and printer.accepted
        # The client wants this and nothing beside it, such as `keep-alive, Upgrade`.
        assert [value.lower() for name, value in printer.headers if name.lower() == "connection"] == ["upgrade"]
        printer.send({"printer_name": f"link-{kind}", "api_key": f"key-{kind}", "user_id": "link", "firmware_version": "1.0.0",
                      "auto_update": True, "update_channel": "stable"})
        offer = printer.receive()
        assert (offer["kind"], offer["version"]) == ("firmware_update", "1.5.0"), offer
    finally:
        printer.close()
    path = urlsplit(offer["url"]).path
    assert path.startswith("/d/")
    status, headers, body = http10(port, path)
    assert status.split(" ")[1] == "200", status
    assert headers["content-length"] == str(SIZE) and headers["x-md5"] == seen.md5
    assert hashlib.md5(body).hexdigest() == seen.md5


def test_envoy_by_itself_refuses_http_1_0(seen):
    assert http10(seen.bare["envoy"].port, "/api/openapi.json")[0].split(" ")[1] == "426"


def test_envoy_by_itself_cuts_a_slow_download(seen):
    status, headers, body = seen.slow
    assert status.split(" ")[1] == "200" and len(body) < SIZE


def test_envoy_by_itself_cuts_the_end_after_a_pause(seen):
    status, headers, body = seen.paused
    assert status.split(" ")[1] == "200" and SIZE - 24_000 <= len(body) < SIZE


def test_envoy_by_itself_holds_1024_sockets(seen):
    done = subprocess.run(
        [program(), "simulate", "--server", seen.bare["envoy"].url.replace("http", "ws"), "-n", str(PRINTERS["envoy"]), "--user", "more",
         "--connect-rate", "500", "--duration", "8s"],
        capture_output=True, text=True, timeout=60)
    said = report(done.stdout)
    assert 900 < int(said["Online"]) <= 1024 and int(said["Failed attempts to connect"]) > 0, said


def test_nginx_by_itself_refuses_an_image(seen, server):
    answer = server.curl(
        "-o", "/dev/null", "-w", "%{http_code}", "-F", f"file=@{seen.image}", "-F", "version=4.0.0",
        f"{seen.bare['nginx'].url}/api/firmware/upload")
    assert answer == "413"


def test_traefik_by_itself_cuts_a_slow_upload(seen):
    assert seen.cut.status != "201" and 50 < seen.cut.seconds < 66, vars(seen.cut)
