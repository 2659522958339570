"""What `docker compose up` starts, as processes: the same commands, settings and password files, on a real PostgreSQL and a real S3.

SeaweedFS stands in for MinIO, and ports of this machine for the names of the containers; nothing else is changed.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

from live import Server, end, free_port, get, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCKER = ROOT / "docker"


def services():
    tool = pathlib.Path(sys.executable).parent / "docker-compose"
    done = subprocess.run(
        [tool, "-f", DOCKER / "compose.yaml", "--profile", "*", "config", "--format", "json"],
        capture_output=True, text=True, timeout=60, check=True, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    return json.loads(done.stdout)["services"]


def password(folder, **settings):
    """The first start of a container that makes its own."""
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"]} | settings
    subprocess.run(["sh", DOCKER / "compose/secret.sh", folder, "true"], check=True, timeout=20, env=environment)
    return (folder / "password").read_text()


def begun(server, name):
    """Waits until it answers, and leaves nothing behind when it does not."""
    try:
        until(name, server.answers)
    except BaseException:
        server.stop()
        raise


class Postgres:
    """With the password of a file, as the image makes one of POSTGRES_PASSWORD_FILE."""

    def __init__(self, folder, secret):
        found = subprocess.run(
            ["bash", "-c", ". scripts/lib.sh; find_postgres"], cwd=ROOT, capture_output=True, text=True, timeout=20
        )
        assert found.returncode == 0, "PostgreSQL is not installed: run 'scripts/setup'"
        programs = pathlib.Path(found.stdout.strip())
        self.port = free_port()
        as_server = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            shutil.chown(folder, "postgres")
            as_server = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        (folder / "pw").write_text(secret)
        (folder / "pw").chmod(0o644)
        data, log = folder / "data", open(folder / "log", "w")
        subprocess.run(
            [*as_server, programs / "initdb", "-D", data, "-U", "paperminder", f"--pwfile={folder}/pw", "--auth=scram-sha-256",
             "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True, stdout=log, stderr=log, timeout=60, cwd=folder,
        )
        subprocess.run(
            [*as_server, programs / "postgres", "--single", "-D", data, "postgres"], input="create database paperminder\n",
            text=True, check=True, stdout=log, stderr=log, timeout=60, cwd=folder,
        )
        self.process = subprocess.Popen(
            [*as_server, programs / "postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}",
             "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"],
            stdout=log, stderr=log, cwd=folder,
        )
        self.check = ["psql", "-qAt", "-c", "select 1", f"postgres://paperminder:{secret}@127.0.0.1:{self.port}/paperminder"]
        begun(self, "PostgreSQL")

    def answers(self):
        assert self.process.poll() is None
        return subprocess.run(self.check, capture_output=True, timeout=20).returncode == 0

    def stop(self):
        # SIGINT: at once, whoever is connected.
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


class S3:
    def __init__(self, folder, user, secret):
        program = ROOT / ".tools/weed"
        assert program.exists(), "SeaweedFS is not in .tools/: run 'scripts/setup test'"
        identity = {
            "name": "root",
            "credentials": [{"accessKey": user, "secretKey": secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (folder / "identities").write_text(json.dumps({"identities": [identity]}))
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.grpc")
        self.port = free_port()
        # As MinIO does, it answers under every name: a presigned URL is for `localhost`.
        self.process = subprocess.Popen(
            [program, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
             *(f"-{name}={free_port()}" for name in names), f"-s3.port={self.port}", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
             "-s3.iam=false", "-master.telemetry=false", f"-s3.config={folder}/identities", "-volume.max=100",
             "-master.volumeSizeLimitMB=1024", "-volume.minFreeSpace=0"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        begun(self, "S3")

    def answers(self):
        assert self.process.poll() is None
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{self.port}"],
            capture_output=True, text=True, timeout=20,
        )
        return done.stdout == "403"

    def stop(self):
        # It takes its time over SIGTERM, and nothing here is worth keeping.
        self.process.kill()
        self.process.wait(10)


class Compose(Server):
    """The containers, as processes. `start` is `up` of the server, `key` what its log said."""

    def __init__(self, program, folder):
        self.program, self.folder, self.process, self.log, self.starts = program, folder, None, None, 0
        self.services = services()
        user = self.services["minio"]["environment"]["MINIO_ROOT_USER"]
        self.others = []
        for name in ("pg", "weed"):
            (folder / name).mkdir()
        try:
            self.others.append(Postgres(folder / "pg", password(folder / "postgres")))
            self.others.append(S3(folder / "weed", user, password(folder / "minio", MINIO_ROOT_USER=user)))
        except BaseException:
            self.stop()
            raise
        public, internal = free_port(), free_port()
        self.base, self.internal = f"http://localhost:{public}", f"http://127.0.0.1:{internal}"
        postgres, s3 = self.others
        # Where the containers' names and mounts are on this machine.
        self.places = {
            "postgres:5432": f"127.0.0.1:{postgres.port}", "minio:9010": f"127.0.0.1:{s3.port}", "localhost:9010": f"localhost:{s3.port}",
            "localhost:8000": f"localhost:{public}", "/run/postgres": f"{folder}/postgres", "/run/minio": f"{folder}/minio",
        }
        self.settings = {
            name: self.here(value or "") for name, value in self.services["server"]["environment"].items()
        } | {"LISTEN_ADDR": f"127.0.0.1:{public}", "INTERNAL_ADDR": f"127.0.0.1:{internal}"}
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder)} | self.settings

    def here(self, text):
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def start(self):
        self.starts += 1
        self.output = self.folder / f"log{self.starts}"
        self.log = open(self.output, "w")
        command = [self.program, *self.services["server"]["command"]]
        self.process = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log, cwd=self.folder)
        try:
            until("the server is healthy", self.healthy)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.output.read_text()[-3000:]}") from None

    def healthy(self):
        """The image's HEALTHCHECK."""
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        done = subprocess.run([self.program, "healthcheck"], env=self.environment, capture_output=True, timeout=20)
        return done.returncode == 0

    def keys(self):
        return re.findall(r"pmk_\w+", self.output.read_text())

    def fleet(self, name):
        service = self.services[name]
        command = [self.here(word) for word in service["command"]]
        return subprocess.Popen(
            [self.program, *command], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )

    def halt(self):
        """SIGTERM, and its exit code within the time that Compose gives."""
        self.process.terminate()
        grace = int(self.services["server"]["stop_grace_period"].removesuffix("s"))
        code = self.process.wait(grace)
        self.process = None
        self.log.close()
        return code

    def stop(self):
        if self.process:
            end(self.process)
            self.log.close()
        for other in self.others:
            other.stop()


@pytest.fixture(scope="module")
def up(program, tmp_path_factory):
    # PostgreSQL's own user must get through, and sockets have short paths.
    folder = pathlib.Path(tmp_path_factory.mktemp("up"))
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    one = Compose(program, folder)
    try:
        one.start()
        yield one
    finally:
        one.stop()


def test_it_comes_up_by_itself_and_prints_one_key(up):
    keys = up.keys()
    assert len(keys) == 1, up.output.read_text()
    up.key = keys[0]
    assert json.loads(up.rest("/api/me"))["role"] == "admin"
    assert get(up.internal + "/readyz") == "ok\n"
    for secret in ("postgres", "minio"):
        assert (up.folder / secret / "password").read_text() not in up.output.read_text()


def test_printers_of_the_profile_are_updated_and_the_failing_ones_fail(up):
    """Their downloads go to S3 itself, by presigned URLs for `localhost`."""
    up.key = up.keys()[0]
    fleets = [up.fleet("printers"), up.fleet("printers-failing")]
    try:
        until("23 printers", lambda: json.loads(up.rest("/api/printers?online=true"))["total"] == 23)
        up.release("1.5.0")
        rollout = {"firmware_version": "1.5.0", "target": {"all": True}, "rollout_type": "immediate", "max_attempts": 1}
        up.rest("/api/rollouts", rollout)
        until("20 confirmed, 3 failed", lambda: counts(up) == (20, 3))
    finally:
        for fleet in fleets:
            end(fleet)
    assert "paperminder_link_downloads_total" not in "".join(
        line for line in up.metrics().splitlines() if not line.startswith("#") and not line.endswith(" 0")
    ), "a presigned URL was too long for somebody"


def counts(server):
    rollout = json.loads(server.rest("/api/rollouts/1"))
    return rollout["confirmed_count"], rollout["failed_count"]


def test_a_restart_is_clean_and_prints_no_key(up):
    key = up.keys()[0]
    assert up.halt() == 0, up.output.read_text()[-2000:]
    up.start()
    assert not up.keys()
    up.key = key
    assert counts(up) == (20, 3)
