"""What cannot be is refused before anything is changed, in a sentence with an example that works."""

import re

import pytest
import yaml
from chartkit import CHART, VALUE_SETS, chart, files, merged, refused, with_needed

# Values, words of the sentence, and the values of the remedy that it names.
SENTENCES = {
    "database host": ({"database": {"host": ""}}, "database.host is missing", {"database": {"host": "db.example.com"}}),
    "database secret": ({"database": {"existingSecret": ""}}, "database.existingSecret is missing", {"database": {"existingSecret": "ota-database"}}),
    "bucket": ({"s3": {"bucket": ""}}, "s3.bucket is missing", {"s3": {"bucket": "acme-firmware"}}),
    "ca without verifying": ({"database": {"caSecret": "ca"}}, "caSecret changes nothing while database.sslMode is require", {"database": {"sslMode": "verify-full"}}),
    "too many connections": ({"database": {"maxConnections": 50}}, "may ask for 65", {"database": {"poolSize": 15}}),
    "too many with autoscaling": (
        {"database": {"maxConnections": 100}, "autoscaling": {"enabled": True, "maxReplicas": 9}}, "9 replicas", {"database": {"poolSize": 8}}),
    "fewer than the fewest": ({"autoscaling": {"enabled": True, "minReplicas": 9}}, "below autoscaling.minReplicas", {"autoscaling": {"maxReplicas": 9}}),
    "nothing to scale by": (
        {"autoscaling": {"enabled": True, "printersPerReplica": 0, "cpuUtilization": 0}}, "nothing to go by", {"autoscaling": {"cpuUtilization": 70}}),
    "scaling too late": ({"autoscaling": {"enabled": True}, "maxPrinters": 5000}, "more than a replica takes", {"autoscaling": {"printersPerReplica": 4000}}),
    "owner in mode startup": (
        {"migrations": {"mode": "startup", "user": "owner", "existingSecret": "s"}}, "migrates as database.user", {"migrations": {"mode": "hook"}}),
    "owner without password": ({"migrations": {"user": "owner"}}, "migrations.existingSecret is missing", {"migrations": {"existingSecret": "ota-database-owner"}}),
    "cdn without url": ({"delivery": {"mode": "cdn"}}, "delivery.cdn.baseUrl is missing", {"delivery": {"cdn": {"baseUrl": "https://firmware.example.com"}}}),
    "cdn key without secret": ({"delivery": {"cdn": {"keyPairId": "K"}}}, "delivery.cdn.existingSecret is missing", {"delivery": {"cdn": {"existingSecret": "ota-cdn"}}}),
    "cdn secret without key": ({"delivery": {"cdn": {"existingSecret": "s"}}}, "delivery.cdn.keyPairId is missing", {"delivery": {"cdn": {"keyPairId": "K2JCJMDEHXQW5F"}}}),
    "issuer without roles": ({"oidc": {"issuer": "https://login.example.com"}}, "oidc.roles is missing", {"oidc": {"roles": {"ota-admins": "admin"}}}),
    "client without id": ({"oidc": {"existingSecret": "s"}}, "oidc.clientId is missing", {"oidc": {"clientId": "paperminder-ota"}}),
    "route without gateway": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is missing", {"httpRoute": {"parentRefs": [{"name": "public"}]}}),
    "ingress without host": ({"ingress": {"enabled": True}}, "ingress.hosts is missing", {"ingress": {"hosts": ["ota.example.com"]}}),
    "external secrets and a hook": (
        {"externalSecrets": {"enabled": True, "storeRef": {"name": "aws"}, "secrets": {"ota-database": {"password": {"key": "k"}}}}},
        "migrations.mode=hook runs before", {"migrations": {"mode": "job"}}),
    "external secrets from nowhere": (
        {"externalSecrets": {"enabled": True, "secrets": {"ota-database": {"password": {"key": "k"}}}}, "migrations": {"mode": "job"}},
        "externalSecrets.storeRef.name is missing", {"externalSecrets": {"storeRef": {"name": "aws"}}}),
    "external secrets without any": (
        {"externalSecrets": {"enabled": True, "storeRef": {"name": "aws"}}, "migrations": {"mode": "job"}},
        "externalSecrets.secrets is empty", {"externalSecrets": {"secrets": {"ota-database": {"password": {"key": "prod/ota/database"}}}}}),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_names_value_and_remedy(name):
    values, words, remedy = SENTENCES[name]
    said = refused(with_needed(values))
    assert words in said and "--set " in said, said
    # One complaint, and the remedy does away with it.
    assert said.count("\n- ") == 1, said
    files(with_needed(merged(values, remedy)))


def test_everything_that_is_missing_is_said_at_once():
    said = refused({})
    assert said.count("\n- ") == 3
    for value in ("database.host", "database.existingSecret", "s3.bucket"):
        assert f"- {value} is missing" in said


def test_the_three_values_that_are_needed_are_enough():
    files(VALUE_SETS["minimal"])


@pytest.mark.parametrize(("connections", "fits"), [(65, True), (64, False)])
def test_connections_are_counted_to_the_last_one(connections, fits):
    # Two replicas and the surplus one, 20 and one to listen each, two for jobs.
    values = with_needed({"database": {"maxConnections": connections}})
    if fits:
        files(values)
    else:
        assert "may ask for 65" in refused(values)


def test_autoscaling_counts_with_its_most_replicas():
    values = {"autoscaling": {"enabled": True, "maxReplicas": 10}, "replicaCount": 2}
    assert "may ask for 233" in refused(with_needed({**values, "database": {"maxConnections": 232}}))
    files(with_needed({**values, "database": {"maxConnections": 233}}))


TYPOS = {
    "at the top": {"replicas": 3},
    "below": {"database": {"hostname": "db"}},
    "far below": {"delivery": {"cdn": {"url": "https://x"}}},
    "in a list": {"httpRoute": {"parentRefs": [{"nam": "public"}]}},
    "a setting that the server does not know": {"settings": {"MAX_FIRMWARE_SIZ": 1}},
    "a number for a word": {"s3": {"bucket": 7}},
    "a word for a number": {"replicaCount": "three"},
    "a mode that is none": {"migrations": {"mode": "hooks"}},
    "no replica": {"replicaCount": 0},
    "a time without unit": {"httpRoute": {"requestTimeout": "60"}},
    "a network that is none": {"trustedProxies": ["10.0.0.1"]},
    "a role that is none": {"oidc": {"roles": {"everybody": "root"}}},
    "less than the server takes to end": {"shutdown": {"transferSeconds": 5}},
    "an url with a question": {"baseUrl": "https://ota.example.com/?x"},
}


@pytest.mark.parametrize("name", TYPOS)
def test_the_schema_catches(name):
    said = refused(with_needed(TYPOS[name]))
    assert "schema" in said.lower() or "additional propert" in said.lower() or "not allowed" in said.lower(), said


@pytest.mark.parametrize("name", ["DATABASE_URL", "MAX_CONNECTIONS", "AWS_SECRET_ACCESS_KEY", "GC_EVERY_SECONDS", "LISTEN_ADDR"])
def test_settings_that_the_chart_sets_are_sent_to_their_value(name):
    said = refused(with_needed({"settings": {name: "1"}}))
    assert re.search(rf"settings\.{name} is set by the chart: use \w", said), said


def test_the_values_that_settings_are_sent_to_exist():
    text = (CHART / "templates" / "_config.tpl").read_text().split('"paperminder-ota.taken" -}}')[1].split("{{- end }}")[0]
    for remedy in yaml.safe_load(text).values():
        for path in re.findall(r"[a-z]\w*(?:\.\w+)+|\b(?:baseUrl|maxPrinters|trustedProxies)\b", remedy):
            value = chart().values
            for part in path.split("."):
                assert part in value, path
                value = value[part]
