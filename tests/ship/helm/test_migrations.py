"""Who brings the schema up to date, when, and as whom."""

import pytest
from chartkit import VALUE_SETS, merged, one, render, with_needed


def of(mode, **values):
    return render(with_needed({"migrations": {"mode": mode, **values}}))


def hooks(objects):
    return {
        thing["kind"]: (thing["metadata"]["annotations"]["helm.sh/hook"], int(thing["metadata"]["annotations"]["helm.sh/hook-weight"]))
        for thing in objects
        if "pre-" in thing["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }


def test_a_hook_stands_alone_and_in_order():
    objects = of("hook")
    found = hooks(objects)
    assert found == {"ServiceAccount": ("pre-install,pre-upgrade", -10), "Job": ("pre-install,pre-upgrade", -5)}
    job = one(objects, "Job")
    spec = job["spec"]["template"]["spec"]
    # Everything that it names must be there before the release is: its own account, and Secrets of the operator's.
    account = one(objects, "ServiceAccount", "-migrate")
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert "helm.sh/hook" in account["metadata"]["annotations"]
    container = spec["containers"][0]
    assert "envFrom" not in container and container["args"] == ["migrate"]
    assert all("configMap" not in volume for volume in spec["volumes"])


def test_a_failed_hook_stays_to_be_read():
    policy = one(of("hook"), "Job")["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
    assert sorted(policy) == ["before-hook-creation", "hook-succeeded"]


def test_migrations_end_some_time_and_may_be_tried_again():
    spec = one(of("hook", timeoutSeconds=90), "Job")["spec"]
    assert spec["activeDeadlineSeconds"] == 90 and spec["backoffLimit"] > 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_servers_wait_for_an_ordinary_job():
    objects = of("job", timeoutSeconds=900)
    assert not hooks(objects)
    waiting = one(objects, "Deployment")["spec"]["template"]["spec"]["initContainers"][0]
    assert waiting["args"] == ["migrate", "--wait", "900"]
    assert {"name": "database", "mountPath": "/etc/paperminder/database", "readOnly": True} in waiting["volumeMounts"]
    assert "initContainers" not in one(of("hook"), "Deployment")["spec"]["template"]["spec"]


def test_an_ordinary_job_has_a_new_name_when_it_does_something_else():
    def name(**more):
        return one(render(merged(VALUE_SETS["argo-cd"], more)), "Job")["metadata"]["name"]

    assert name() == name() == name(replicaCount=5)
    others = [name(image={"tag": "2.0.0"}), name(database={"host": "other"}), name(migrations={"user": "else"})]
    assert len({name(), *others}) == 4


def test_servers_migrate_themselves_in_mode_startup():
    objects = of("startup")
    assert not [thing for thing in objects if thing["kind"] == "Job"]
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"] == ["serve", "--migrate"]


@pytest.mark.parametrize("mode", ["hook", "job"])
def test_servers_do_not_migrate_in_other_modes(mode):
    assert one(of(mode), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"] == ["serve"]


@pytest.mark.parametrize("mode", ["hook", "job"])
def test_the_owner_migrates_and_grants_to_the_servers(mode):
    objects = render(merged(VALUE_SETS["aws-pod-identity"], {"migrations": {"mode": mode}}))
    spec = one(objects, "Job")["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["args"] == ["migrate", "--grant-to", "paperminder_server"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["DATABASE_URL"].startswith("postgres://paperminder_owner@")
    # The servers' pods never see the owner's password.
    server = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert "ota-database-owner" not in str(server) and "paperminder_owner" not in str(server)


def test_the_way_to_the_database_is_the_same_for_all():
    objects = render(VALUE_SETS["aws-pod-identity"])
    env = {entry["name"]: entry.get("value") for entry in one(objects, "Job")["spec"]["template"]["spec"]["containers"][0]["env"]}
    url = one(objects, "ConfigMap", "paperminder-ota")["data"]["DATABASE_URL"]
    assert env["DATABASE_URL"].replace("_owner@", "_server@") == url
