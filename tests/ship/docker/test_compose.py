"""compose.yaml as Compose itself reads it, held to the server, and to what must not be in it."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCKER = ROOT / "docker"
OURS = "paperminder-ota:dev"


def compose(*arguments, **settings):
    """The model that Compose makes of the file, with all that it fills in."""
    tool = pathlib.Path(sys.executable).parent / "docker-compose"
    assert tool.exists(), "docker-compose is not in .tools/: run 'scripts/setup test'"
    done = subprocess.run(
        [tool, "-f", DOCKER / "compose.yaml", *arguments, "config", "--format", "json"],
        capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | settings,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"Compose warns: {done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def everything():
    return compose("--profile", "*")["services"]


def environment(service):
    return {name: value or "" for name, value in service.get("environment", {}).items()}


def test_three_containers_to_try_it():
    assert set(compose()["services"]) == {"server", "postgres", "minio"}


@pytest.mark.parametrize(
    "profile, more",
    [
        ("printers", {"printers", "printers-failing"}),
        ("replicas", {"replica", "nginx"}),
        ("observability", {"collector", "tempo", "prometheus", "grafana"}),
    ],
)
def test_profiles_add(profile, more):
    assert set(compose("--profile", profile)["services"]) == {"server", "postgres", "minio"} | more


def test_ports_are_on_this_machine_alone(everything):
    published = [port for service in everything.values() for port in service.get("ports", [])]
    assert {int(port["published"]) for port in published} == {8000, 9000, 9010, 8080, 9090, 3000}
    assert all(port["host_ip"] == "127.0.0.1" for port in published)
    # Under the number that URLs name on either side.
    assert all(int(port["published"]) == port["target"] for port in published)


def test_bind_opens_what_printers_need_and_nothing_else():
    services = compose("--profile", "*", BIND="0.0.0.0", PUBLIC_HOST="192.168.1.10")["services"]
    open_ports = {int(port["published"]) for service in services.values() for port in service.get("ports", []) if port["host_ip"] == "0.0.0.0"}
    assert open_ports == {8000, 9010, 8080}
    env = environment(services["server"])
    assert env["S3_PUBLIC_ENDPOINT"] == "http://192.168.1.10:9010" and env["BASE_URL"] == "http://192.168.1.10:8000"
    # The server's own way to the bucket stays inside.
    assert env["AWS_ENDPOINT_URL_S3"] == "http://minio:9010"


def test_the_server_waits_for_what_it_needs_and_printers_for_the_server(everything):
    def needs(name):
        return {other: one["condition"] for other, one in everything[name]["depends_on"].items()}

    assert needs("server") == {"postgres": "service_healthy", "minio": "service_healthy"}
    for name in ("printers", "printers-failing", "replica"):
        assert needs(name)["server"] == "service_healthy"
    assert needs("nginx")["replica"] == "service_healthy"
    for name in ("postgres", "minio"):
        assert everything[name]["healthcheck"]["test"], name
    # The image's own, which asks /readyz.
    assert "healthcheck" not in everything["server"]


def test_a_presigned_url_is_the_same_place_for_everybody(everything):
    """localhost:9010 is MinIO on the host by the published port, and in these containers by sharing its namespace."""
    minio = everything["minio"]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", environment(everything["server"])["S3_PUBLIC_ENDPOINT"]).groups()
    assert host == "localhost"
    assert f":{port}" == minio["command"][minio["command"].index("--address") + 1]
    assert any(int(one["published"]) == int(port) for one in minio["ports"])
    for name in ("server", "printers", "printers-failing"):
        assert everything[name]["network_mode"] == "service:minio", name
    # Whoever is in another's namespace has no name, and no ports, of its own.
    assert "server" in minio["networks"]["default"]["aliases"]
    assert not any(everything[name].get("ports") for name in ("server", "printers", "printers-failing"))


def test_nothing_listens_twice_in_the_shared_namespace(everything):
    settings = (ROOT / "src/config/settings.rs").read_text()
    ports = [re.search(rf'"{name}", "0\.0\.0\.0:(\d+)"', settings)[1] for name in ("LISTEN_ADDR", "INTERNAL_ADDR")]
    command = everything["minio"]["command"]
    ports += [command[command.index(flag) + 1].rsplit(":", 1)[1] for flag in ("--address", "--console-address")]
    assert len(set(ports)) == 4, ports


def test_no_secret_stands_in_it(everything):
    for name, service in everything.items():
        for key, value in environment(service).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY", key) and key != "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION":
                assert key.endswith("_FILE"), f"{name}: {key}"
            assert not re.search(r"://[^/@]*:[^/@]+@", value), f"{name}: a password in {key}"
    text = (DOCKER / "compose.yaml").read_text()
    assert not re.search(r"minioadmin|password:|admin:admin", text)


def test_secrets_are_mounted_by_their_maker_and_read_by_the_server(everything):
    uses = {}
    for name, service in everything.items():
        for mount in service.get("volumes", []):
            if mount["type"] == "volume" and mount["source"].endswith("-secret"):
                uses.setdefault(mount["source"], {})[name] = bool(mount.get("read_only"))
    assert uses == {
        "postgres-secret": {"postgres": False, "server": True, "replica": True},
        "minio-secret": {"minio": False, "server": True, "replica": True},
    }
    server = everything["server"]
    targets = {mount["source"]: mount["target"] for mount in server["volumes"]}
    assert environment(server)["DATABASE_PASSWORD_FILE"] == targets["postgres-secret"] + "/password"
    assert environment(server)["AWS_SHARED_CREDENTIALS_FILE"] == targets["minio-secret"] + "/credentials"
    made = {mount["source"]: mount["target"] for mount in everything["postgres"]["volumes"] if mount["type"] == "volume"}
    assert environment(everything["postgres"])["POSTGRES_PASSWORD_FILE"] == made["postgres-secret"] + "/password"


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_password_is_made_once(tmp_path, shell):
    script = DOCKER / "compose/secret.sh"
    where = shutil.which(shell) or shutil.which("sh")

    def start(**settings):
        done = subprocess.run(
            [where, script, tmp_path, "sh", "-c", 'echo "${MINIO_ROOT_PASSWORD-none}"'],
            capture_output=True, text=True, timeout=20, env={"PATH": os.environ["PATH"]} | settings,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.strip()

    first = start(MINIO_ROOT_USER="paperminder")
    assert re.fullmatch(r"[0-9a-f]{48}", first)
    assert (tmp_path / "password").read_text() == first
    assert (tmp_path / "credentials").read_text() == (
        f"[default]\naws_access_key_id = paperminder\naws_secret_access_key = {first}\n"
    )
    # The server is another user, and only reads.
    assert oct((tmp_path / "password").stat().st_mode & 0o777) == "0o644"
    assert start(MINIO_ROOT_USER="paperminder") == first
    # PostgreSQL reads its file, and no environment needs to hold it.
    assert start() == "none"


def test_two_installations_have_two_passwords(tmp_path):
    made = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run(["sh", DOCKER / "compose/secret.sh", tmp_path / name, "true"], check=True, timeout=20)
        made.add((tmp_path / name / "password").read_text())
    assert len(made) == 2


def test_what_is_mounted_is_there_and_cannot_be_changed(everything):
    seen = set()
    for name, service in everything.items():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert pathlib.Path(mount["source"]).exists(), f"{name}: {mount['source']}"
                assert mount["read_only"], f"{name}: {mount['source']}"
                seen.add(pathlib.Path(mount["source"]).relative_to(ROOT).as_posix())
    # One source of alerts and dashboards: the chart's.
    assert {"helm/paperminder-ota/files/alerts.yaml", "helm/paperminder-ota/files/dashboards"} <= seen
    lost = {path.relative_to(ROOT).as_posix() for path in (DOCKER / "compose").rglob("*") if path.is_file()} - seen
    assert not lost, f"nobody mounts {lost}"


def test_our_containers_are_as_closed_as_in_production(everything):
    ours = {name: service for name, service in everything.items() if service["image"] == OURS}
    assert set(ours) == {"server", "replica", "printers", "printers-failing"}
    for name, service in ours.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "user" not in service, "the image's number holds"


def test_time_to_stop_is_longer_than_the_drain(everything):
    for name in ("server", "replica"):
        drain = int(environment(everything[name])["DRAIN_SECONDS"])
        grace = everything[name]["stop_grace_period"]
        assert int(re.fullmatch(r"(\d+)s", grace)[1]) >= drain + 35, name


def test_images_are_pinned(everything):
    for name, service in everything.items():
        image = service["image"]
        if image != OURS:
            assert re.fullmatch(r"[a-z.]+/[\w./-]+:[\w.-]*\d[\w.-]*", image) and ":latest" not in image, f"{name}: {image}"


def test_commands_and_their_options_are_the_programs_own(everything, program):
    for name, service in everything.items():
        if service["image"] != OURS:
            continue
        command, *options = service["command"]
        help = subprocess.run([program, command, "--help"], capture_output=True, text=True, timeout=30)
        assert help.returncode == 0, f"{name}: {command}"
        for option in options:
            flag = option.split("=")[0]
            assert re.search(rf"{flag}\b", help.stdout), f"{name}: {command} has no {flag}"
    assert everything["server"]["command"] == ["serve", "--migrate", "--create-bucket", "--first-key"]
    # Replicas find it done.
    assert everything["replica"]["command"] == ["serve"]


def test_settings_are_the_programs_own(everything, program):
    known = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    for name in ("server", "replica"):
        for setting in environment(everything[name]):
            standard = setting.startswith(("AWS_", "OTEL_"))
            assert standard or re.search(rf"\b{setting}\b", known), f"{name}: {setting}"


def test_simulated_printers_do_not_cut_each_other_off(everything):
    """Printers of two runs have the same names, unless their users differ."""
    users = [word for name in ("printers", "printers-failing") for word in everything[name]["command"] if word.startswith("--user=")]
    assert len(set(users)) == 2
    assert "--corrupt-rate=1" in everything["printers-failing"]["command"]


def read(name):
    return yaml.safe_load((DOCKER / "compose" / name).read_text())


def test_prometheus_takes_its_configuration(tmp_path):
    text = (DOCKER / "compose/prometheus.yaml").read_text()
    inside = "/etc/prometheus/alerts.yaml"
    assert inside in text
    (tmp_path / "prometheus.yaml").write_text(text.replace(inside, str(ROOT / "helm/paperminder-ota/files/alerts.yaml")))
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_what_is_there(everything):
    ours = next(job for job in read("prometheus.yaml")["scrape_configs"] if job["job_name"] == "paperminder-ota")
    assert ours["static_configs"][0]["targets"] == ["server:9000"]
    assert ours["dns_sd_configs"][0]["names"] == ["replica"] and ours["dns_sd_configs"][0]["port"] == 9000
    mounts = {mount["target"] for mount in everything["prometheus"]["volumes"]}
    assert set(read("prometheus.yaml")["rule_files"]) <= mounts
    config = next(word for word in everything["prometheus"]["command"] if word.startswith("--config.file="))
    assert config.split("=")[1] in mounts


def test_traces_find_their_way(everything):
    """Server → collector by OTLP over HTTP → Tempo by OTLP over gRPC → Grafana."""
    collector, tempo = read("collector.yaml"), read("tempo.yaml")
    pipeline = collector["service"]["pipelines"]["traces"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(collector[kind]), f"{kind} that are defined and used differ"
    assert pipeline["processors"] == ["memory_limiter", "batch"]
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"] == "0.0.0.0:4318"
    host, port = collector["exporters"]["otlp"]["endpoint"].split(":")
    assert host in everything
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == f"0.0.0.0:{port}"
    paths = tempo["storage"]["trace"]
    assert all(paths[part]["path"].startswith("/var/tempo/") for part in ("wal", "local"))
    assert everything["tempo"]["tmpfs"] == ["/var/tempo:mode=1777"]
    # Without the profile nothing is exported.
    assert environment(everything["server"])["OTEL_EXPORTER_OTLP_ENDPOINT"] == ""
    with_traces = compose(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")["services"]["server"]
    assert environment(with_traces)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


def test_grafana_finds_its_sources_and_dashboards(everything):
    sources = {one["type"]: one for one in read("grafana/datasources.yaml")["datasources"]}
    assert sources["prometheus"]["url"] == "http://prometheus:9090" and sources["prometheus"]["isDefault"]
    assert sources["tempo"]["url"] == f"http://tempo:{read('tempo.yaml')['server']['http_listen_port']}"
    path = read("grafana/dashboards.yaml")["providers"][0]["options"]["path"]
    assert path in {mount["target"] for mount in everything["grafana"]["volumes"]}
    home = environment(everything["grafana"])["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "helm/paperminder-ota/files/dashboards" / pathlib.Path(home).name).exists() and home.startswith(path)
    interval = sources["prometheus"]["jsonData"]["timeInterval"]
    assert interval == read("prometheus.yaml")["global"]["scrape_interval"]
