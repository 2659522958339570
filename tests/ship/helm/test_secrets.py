"""Secrets are files of Secrets that somebody else makes: none stands in a value, an environment or a ConfigMap."""

import json
import re

import helm_python
import pytest
from chartkit import ALL_SETS, VALUE_SETS, chart, containers, merged, one, pod_specs, render, with_needed

EVERYTHING = merged(VALUE_SETS["people"], merged(VALUE_SETS["aws-pod-identity"], {
    "s3": {"existingSecret": "ota-s3"}, "garbageCollection": {"mode": "cronjob"}, "tests": {"existingSecret": "ota-test"}}))


@pytest.mark.parametrize("name", ALL_SETS)
def test_the_chart_makes_no_secret(name):
    assert not [thing for thing in render(ALL_SETS[name]) if thing["kind"] == "Secret"]


def test_no_value_takes_a_secret_itself():
    def names(schema, path=""):
        for key, inner in schema.get("properties", {}).items():
            yield f"{path}{key}"
            if path + key != "settings":
                yield from names(inner, f"{path}{key}.")

    words = re.compile(r"(password|secret|token|private|credential)", re.I)
    found = {name for name in names(chart().schema) if words.search(name.rsplit(".", 1)[-1])}
    # Names of Secrets, and of keys in them.
    assert found and all(re.search(r"(existingSecret|Secret|Key|Secrets|secrets)$", name) for name in found), found


def test_no_default_holds_a_word_to_get_in_with():
    text = json.dumps(chart().values)
    assert not re.search(r"(changeme|hunter2|minioadmin|admin123|postgres:postgres)", text, re.I)
    assert chart().values["database"]["existingSecret"] == "" and chart().values["auth"]["existingSecret"] == ""


@pytest.mark.parametrize("name", ALL_SETS)
def test_no_environment_holds_one(name):
    for _, spec in pod_specs(render(ALL_SETS[name])):
        for container in containers(spec):
            for entry in container.get("env", []):
                if re.search(r"(PASSWORD|SECRET|TOKEN|_KEY)", entry["name"]) and not entry["name"].endswith("_FILE"):
                    assert set(entry["valueFrom"]) == {"secretKeyRef"}, entry
                assert not re.search(r"://[^/@]*:[^/@]*@", entry.get("value", "")), entry


@pytest.mark.parametrize("name", ALL_SETS)
def test_no_configuration_holds_one(name):
    for thing in render(ALL_SETS[name]):
        if thing["kind"] == "ConfigMap":
            for key, value in thing.get("data", {}).items():
                assert not re.search(r"://[^/@\s]*:[^/@\s]*@", value), key
                if re.search(r"(PASSWORD|SECRET|TOKEN|PRIVATE_KEY|ADMIN_KEY)", key):
                    assert key.endswith("_FILE") and value.startswith("/etc/paperminder/"), key


def test_the_database_s_password_is_a_file_for_all_who_need_it():
    objects = render(EVERYTHING)
    for _, spec in pod_specs(objects):
        container = spec["containers"][0]
        if container["name"] == "test":
            continue
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "database")
        owner = container["name"] == "migrate"
        assert volume["secret"]["secretName"] == ("ota-database-owner" if owner else "ota-database")
        assert volume["secret"]["items"] == [{"key": "password", "path": "password"}]
        assert {"name": "database", "mountPath": "/etc/paperminder/database", "readOnly": True} in container["volumeMounts"]
    config = one(objects, "ConfigMap", "paperminder-ota")["data"]
    assert config["DATABASE_PASSWORD_FILE"] == "/etc/paperminder/database/password"
    assert config["DATABASE_URL"] == (
        "postgres://paperminder_server@ota.cluster-abc.eu-central-1.rds.amazonaws.com:5432/paperminder"
        "?sslmode=verify-full&sslrootcert=/etc/paperminder/database-ca/ca.crt")


def test_every_file_of_the_configuration_is_mounted():
    objects = render(EVERYTHING)
    spec = one(objects, "Deployment")["spec"]["template"]["spec"]
    paths = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in spec["containers"][0]["volumeMounts"]
        for volume in spec["volumes"] if volume["name"] == mount["name"]
        for item in volume["secret"]["items"]
    }
    config = one(objects, "ConfigMap", "paperminder-ota")["data"]
    wanted = {value for key, value in config.items() if key.endswith("_FILE")}
    assert len(wanted) == 4 and wanted <= paths
    assert paths - wanted == {"/etc/paperminder/database-ca/ca.crt"}
    modes = {volume["secret"]["defaultMode"] for volume in spec["volumes"]}
    # The group may read, which fsGroup is; nobody else.
    assert modes == {0o440} and spec["securityContext"]["fsGroup"] == 65532


def test_pod_identity_needs_no_secret_of_aws():
    spec = one(render(VALUE_SETS["aws-pod-identity"]), "Deployment")["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "paperminder-ota"
    assert not [entry for entry in spec["containers"][0]["env"] if entry["name"].startswith("AWS_")]
    account = one(render(VALUE_SETS["irsa"]), "ServiceAccount", "ota-paperminder-ota")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/ota"}


def test_static_keys_come_from_their_secret():
    env = one(render(VALUE_SETS["minio"]), "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    found = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in env if entry["name"].startswith("AWS_")}
    assert found == {
        "AWS_ACCESS_KEY_ID": {"name": "ota-minio", "key": "access-key"},
        "AWS_SECRET_ACCESS_KEY": {"name": "ota-minio", "key": "secret-key"},
    }


def test_external_secrets_are_made_as_they_are_named():
    secret = one(render(VALUE_SETS["external-secrets"]), "ExternalSecret")
    assert secret["metadata"]["name"] == secret["spec"]["target"]["name"] == "ota-database"
    assert secret["spec"]["data"] == [{"secretKey": "password", "remoteRef": {"key": "prod/ota", "property": "password"}}]
    assert not [
        thing for thing in render(VALUE_SETS["external-secrets"])
        if thing["metadata"].get("annotations", {}).get("helm.sh/hook", "test") != "test"], "hooks would wait for it for ever"


def test_roles_and_databases_cannot_smuggle_one_in():
    # So that the URL of the database can carry no password.
    for values in ({"database": {"user": "me:secret"}}, {"database": {"name": "db?password=x"}}):
        with pytest.raises(helm_python.HelmError):
            render(with_needed(values))
