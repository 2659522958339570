"""What the servers are told, and that they would understand it."""

import os
import re
import subprocess
from urllib.parse import unquote, urlsplit

import pytest
from chartkit import ALL_SETS, CHART, VALUE_SETS, chart, merged, one, program, render, server_settings, tool, with_needed



def configs():
    for name, values in ALL_SETS.items():
        for thing in render(values):
            if thing["kind"] == "ConfigMap" and "LISTEN_ADDR" in thing.get("data", {}):
                yield name, thing["data"]


def test_every_value_set_has_a_configuration():
    assert [name for name, _ in configs()] == list(ALL_SETS)


@pytest.mark.parametrize(("name", "data"), list(configs()), ids=list(ALL_SETS))
def test_the_server_knows_every_setting(name, data):
    unknown = {key for key in data if not key.startswith(("AWS_", "OTEL_"))} - server_settings()
    assert not unknown


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """What the pods would have mounted, as far as the server reads it when it starts."""
    folder = tmp_path_factory.mktemp("secrets")
    for path, text in {"admin/key": "a-key-for-this-test-alone-0123456789", "oidc/client-secret": "s", "database/password": "p"}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "cdn").mkdir()
    key = subprocess.run(
        [tool("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], capture_output=True, text=True, check=True)
    (folder / "cdn" / "private-key.pem").write_text(key.stdout)
    return folder


def start(data, secrets):
    """What a server says that is started so, without a database."""
    env = {key: value.replace("/etc/paperminder", str(secrets)) for key, value in data.items()}
    env["DATABASE_URL"] = re.sub(r"@[^/]+/", "@127.0.0.1:1/", env["DATABASE_URL"])
    done = subprocess.run(
        [program(), "serve"], capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], **env, "LISTEN_ADDR": "127.0.0.1:0", "INTERNAL_ADDR": "127.0.0.1:0", "LOG_FORMAT": "text"})
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "data"), list(configs()), ids=list(ALL_SETS))
def test_the_server_takes_each_configuration(name, data, secrets):
    # Settings are judged first: who misses the database has found nothing to say against them.
    said = start(data, secrets)
    assert "the database cannot be reached" in said, said


def test_the_server_would_say_which_setting_is_wrong(secrets):
    data = one(render(with_needed({"settings": {"PRINTER_AUTH": "nobody"}})), "ConfigMap", "paperminder-ota")["data"]
    assert "PRINTER_AUTH" in start(data, secrets)


def test_the_server_s_help_has_the_same_settings():
    text = subprocess.run([program(), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    assert server_settings() <= set(re.findall(r"^  ([A-Z0-9_]+)$", text, re.M))


def test_every_setting_of_the_templates_is_tried():
    written = set(re.findall(r'"([A-Z][A-Z0-9]+_[A-Z0-9_]+)"', (CHART / "templates" / "_config.tpl").read_text()))
    tried = {key for _, data in configs() for key in data}
    assert written <= tried, written - tried


def test_numbers_stay_numbers():
    data = one(render(VALUE_SETS["people"]), "ConfigMap", "paperminder-ota")["data"]
    # Helm reads numbers as floats.
    assert data["MAX_FIRMWARE_SIZE"] == "2097152" and data["SESSION_SECONDS"] == "28800"
    data = one(render(with_needed({"maxPrinters": 10000000})), "ConfigMap", "paperminder-ota")["data"]
    assert data["MAX_CONNECTIONS"] == "10000000"


def test_roles_and_proxies_are_written_as_the_server_reads_them():
    data = one(render(VALUE_SETS["people"]), "ConfigMap", "paperminder-ota")["data"]
    assert data["OIDC_ROLES"] == "acme/printer=release,ota-admins=admin"
    data = one(render(VALUE_SETS["gateway-api"]), "ConfigMap", "paperminder-ota")["data"]
    assert data["TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://ota-paperminder-ota.devices.svc:8000"),
        ({"baseUrl": "https://x.example.com/"}, "https://x.example.com"),
        ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["a.example.com"]}}, "https://a.example.com"),
        ({"ingress": {"enabled": True, "hosts": ["b.example.com"]}}, "http://b.example.com"),
        ({"ingress": {"enabled": True, "hosts": ["b.example.com"], "tls": [{"secretName": "t"}]}}, "https://b.example.com"),
        ({"baseUrl": "http://plain.example.com", "ingress": {"enabled": True, "hosts": ["b.example.com"]}}, "http://plain.example.com"),
    ],
)
def test_links_name_the_way_in(values, url):
    assert one(render(with_needed(values)), "ConfigMap", "paperminder-ota")["data"]["BASE_URL"] == url


def test_ipv6_is_listened_on_where_it_is_asked_for():
    data = one(render(VALUE_SETS["network-policy"]), "ConfigMap", "paperminder-ota")["data"]
    assert (data["LISTEN_ADDR"], data["INTERNAL_ADDR"]) == ("[::]:8000", "[::]:9000")
    services = [thing["spec"]["ipFamilyPolicy"] for thing in render(VALUE_SETS["network-policy"]) if thing["kind"] == "Service"]
    assert services == ["PreferDualStack"] * 2


def test_path_style_is_said_only_when_it_is_set():
    def said(value):
        return one(render(with_needed({"s3": {"pathStyle": value}})), "ConfigMap", "paperminder-ota")["data"].get("S3_PATH_STYLE")

    assert (said(None), said(True), said(False)) == (None, "true", "false")


def test_one_of_them_removes_garbage():
    objects = render(with_needed({"garbageCollection": {"mode": "cronjob", "olderThanHours": 48}}))
    assert one(objects, "ConfigMap", "paperminder-ota")["data"]["GC_EVERY_SECONDS"] == "0"
    job = one(objects, "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid" and job["timeZone"] == "Etc/UTC"
    assert job["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["gc", "--older-than", "48"]
    objects = render()
    assert "GC_EVERY_SECONDS" not in one(objects, "ConfigMap", "paperminder-ota")["data"]
    assert not [thing for thing in objects if thing["kind"] == "CronJob"]


@pytest.mark.parametrize("off", ["off", False], ids=["text", "as YAML reads it"])
def test_nobody_removes_garbage_when_it_is_off(off):
    objects = render(with_needed({"garbageCollection": {"mode": off}}))
    assert one(objects, "ConfigMap", "paperminder-ota")["data"]["GC_EVERY_SECONDS"] == "0"
    assert not [thing for thing in objects if thing["kind"] == "CronJob"]


def test_names_are_written_into_the_url_of_the_database_as_urls_need_it():
    data = one(render(with_needed({"database": {"user": "a b%c", "name": "ota ü"}})), "ConfigMap", "paperminder-ota")["data"]
    url = urlsplit(data["DATABASE_URL"])
    assert " " not in data["DATABASE_URL"] and (unquote(url.username), unquote(url.path)) == ("a b%c", "/ota ü")


def test_the_commands_of_the_chart_exist():
    program_help = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True).stdout
    commands = set(re.findall(r"^  (\w+)", program_help, re.M))
    used = {
        container["args"][0]
        for values in ALL_SETS.values() for thing in render(merged(values, {"garbageCollection": {"mode": "cronjob"}}))
        for spec in [thing.get("spec", {})]
        for pod in [spec.get("jobTemplate", {}).get("spec", spec).get("template", {}).get("spec", {})]
        for container in pod.get("containers", []) + pod.get("initContainers", []) if "args" in container
    }
    assert used == {"serve", "migrate", "gc"} and used <= commands


@pytest.mark.parametrize("words", [
    ("serve", "--migrate"), ("migrate", "--grant-to"), ("migrate", "--wait"), ("gc", "--older-than"), ("gc", "--dry-run"),
    ("key", "create", "--name", "--role"), ("key", "list"), ("doctor",), ("simulate", "--mode", "--duration")], ids=" ".join)
def test_the_server_has_what_chart_and_documents_call(words):
    command = [word for word in words if not word.startswith("-")]
    said = subprocess.run([program(), *command, "--help"], capture_output=True, text=True)
    assert said.returncode == 0 and all(flag in said.stdout for flag in words[len(command):]), said.stderr


def test_documents_call_nothing_else():
    text = "".join((CHART / name).read_text() for name in ("README.md", "UPGRADING.md", "templates/NOTES.txt"))
    assert set(re.findall(r"paperminder-ota (?=[a-z])([a-z]+) ?(?:create|list)?", text)) <= {"key", "doctor", "gc", "simulate"}


def test_migrations_run_as_the_chart_calls_them(server, tmp_path):
    """Against a real database that is up to date: the Job, then what servers wait with."""
    objects = render(VALUE_SETS["external-secrets"])
    spec = one(objects, "Deployment")["spec"]["template"]["spec"]
    (tmp_path / "password").write_text("of no use: the test's database asks for none\n")
    for container in (one(objects, "Job")["spec"]["template"]["spec"]["containers"][0], spec["initContainers"][0]):
        done = subprocess.run(
            [program(), *container["args"]], capture_output=True, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "DATABASE_URL": server.database, "DATABASE_PASSWORD_FILE": str(tmp_path / "password")})
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_value_is_used_by_a_template():
    text = "".join(path.read_text() for path in CHART.glob("templates/**/*") if path.is_file())

    def leaves(values, path=()):
        for key, value in values.items():
            if isinstance(value, dict) and value and key not in ("resources", "labels"):
                yield from leaves(value, (*path, key))
            else:
                yield (*path, key)

    unused = [
        ".".join(path) for path in leaves(chart().values)
        # Probes are written out whole.
        if not re.search(rf"\.{path[-1]}\b", text) and not path[0].endswith("Probe") and path[0] != "global"
    ]
    assert not unused
