"""terraform/ run by Terraform itself, with stand-ins for the AWS provider and the modules of the registry."""
import json
import re

import jsonschema
import pytest
import yaml
from engine import constraints
from engine.workspace import MODULES, ROOT, SCHEMA, TERRAFORM, named, parse

EXAMPLES = ["minimal", "complete", "existing-database"]
WITH_TESTS = [str(path.parent.parent.relative_to(TERRAFORM)) for path in sorted(TERRAFORM.glob("**/*.tftest.hcl"))]


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request, workspace):
    return workspace.applied(f"examples/{request.param}")


@pytest.fixture(scope="module")
def complete(workspace):
    return workspace.given(workspace.applied("examples/complete"))


@pytest.fixture(scope="module")
def minimal(workspace):
    return workspace.given(workspace.applied("examples/minimal"))


def values(workspace, where):
    return yaml.safe_load(workspace.state(where)["outputs"]["helm_values"]["value"])


def test_formatted_as_terraform_fmt_does(workspace):
    done = workspace.run(".", "fmt", "-check", "-diff", "-recursive", "-no-color", code=None)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("where", WITH_TESTS)
def test_terraform_test(workspace, where):
    runs = sum(len(re.findall(r'^run "', path.read_text(), re.M)) for path in (TERRAFORM / where / "tests").glob("*.tftest.hcl"))
    done = workspace.run(where, "test", "-no-color", code=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Success! {runs} passed, 0 failed." in done.stdout


def test_each_module_and_the_composition_have_tests():
    assert set(WITH_TESTS) == {".", *(f"modules/{path.name}" for path in (TERRAFORM / "modules").iterdir())}


def test_what_is_given_to_modules_fits_them_to_the_letter(workspace, example):
    calls = workspace.given(example)
    assert len(calls) >= 2
    sources = {name: call["source"] for path in (TERRAFORM / "modules").iterdir() for name, call in named(path, "module").items()}
    wrong = []
    for address, given in calls.items():
        description = MODULES[sources[address.rsplit("module.", 1)[1]]]
        for name, value in given.items():
            of = constraints.parse(description["variables"][name])
            wrong += constraints.misfits(value, of, f"{address}: {name}")
        wrong += [f"{address}: {name} is required" for name in description["required"] if given[name] is None]
    assert not wrong, "\n".join(wrong)


def test_a_second_plan_changes_nothing(workspace, example):
    done = workspace.run(example, "plan", "-detailed-exitcode", "-no-color", code=None)
    assert done.returncode == 0, done.stdout


def test_the_state_holds_no_secret(workspace, example):
    state = (workspace.folder / example / "terraform.tfstate").read_text()
    assert not re.search(r"PRIVATE KEY|AKIA[A-Z0-9]{16}|postgres(ql)?://[^\s\"]*:[^\s\"]*@", state)

    def leaves(value, path=""):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from leaves(inner, f"{path}.{name}")
        elif isinstance(value, list):
            for inner in value:
                yield from leaves(inner, path)
        else:
            yield path, value

    # Each value of a terraform_data has its type beside it.
    texts = [(path, value) for path, value in leaves(json.loads(state)) if isinstance(value, str) and ".type" not in path]
    assert len(texts) > 50
    held = [path for path, value in texts if re.search(r"(password|password_wo|token|secret_string|secret_key)$", path) and value]
    assert not held, held


CHART = ROOT / "helm" / "paperminder-ota"


def test_helm_values_are_values_of_the_chart(workspace, example):
    checker = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
    errors = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in checker.iter_errors(values(workspace, example))]
    assert not errors, "\n".join(errors)


def test_the_chart_renders_with_helm_values(workspace, example):
    import helm_python

    given = values(workspace, example)
    files = helm_python.Chart.load(CHART).render(given, name="paperminder-ota", namespace="ota")
    objects = [thing for name, text in files.items() if not name.endswith(".txt") for thing in yaml.safe_load_all(text) if thing]
    # The role is for one service account by name: all that touches S3 must run as it.
    accounts = [thing["metadata"] for thing in objects if thing["kind"] == "ServiceAccount"]
    assert given["serviceAccount"]["name"] in [account["name"] for account in accounts]
    (server,) = [thing for thing in objects if thing["kind"] == "Deployment"]
    collectors = [thing["spec"]["jobTemplate"] for thing in objects if thing["kind"] == "CronJob"]
    for owner in [server, *collectors]:
        assert owner["spec"]["template"]["spec"]["serviceAccountName"] == given["serviceAccount"]["name"]
    role = given["serviceAccount"]["annotations"].get("eks.amazonaws.com/role-arn")
    (account,) = [account for account in accounts if account["name"] == given["serviceAccount"]["name"]]
    assert account.get("annotations", {}).get("eks.amazonaws.com/role-arn") == role
    # Every Secret that was named is mounted or read by somebody.
    everything = json.dumps(objects)
    named = [given["database"]["existingSecret"], given["migrations"].get("existingSecret"), given["delivery"]["cdn"].get("existingSecret")]
    for secret in filter(None, [*named, given["database"].get("caSecret")]):
        assert f'"{secret}"' in everything, secret


def test_helm_values_hold_the_three_that_the_chart_needs(workspace, example):
    given = values(workspace, example)
    assert given["database"]["host"] and given["database"]["existingSecret"] and given["s3"]["bucket"] == "acme-firmware"
    assert given["database"]["user"] != given["migrations"]["user"]


def test_rights_are_those_of_security_md(minimal, complete):
    text = (ROOT / "SECURITY.md").read_text()
    sentence = re.search(r"In S3 the server needs (.*?) on its bucket", text, re.S).group(1)
    documented = {f"s3:{action}" for action in re.findall(r"`(\w+)`", sentence)}
    assert len(documented) == 7
    (policy,) = minimal["module.identity.module.pod_identity"]["source_policy_documents"]
    statements = json.loads(policy)["Statement"]
    assert {action for statement in statements for action in statement["Action"]} == documented
    assert all(statement["Effect"] == "Allow" and "*" not in statement["Action"] for statement in statements)
    # A key of one's own adds the use of this key, and nothing else.
    (policy,) = complete["module.identity.module.pod_identity"]["source_policy_documents"]
    more = json.loads(policy)["Statement"][len(statements) :]
    assert [sorted(statement["Action"]) for statement in more] == [["kms:Decrypt", "kms:GenerateDataKey"]]
    assert all("*" not in resource for statement in more for resource in statement["Resource"])


def test_the_role_is_for_one_service_account(complete):
    given = complete["module.identity.module.pod_identity"]
    assert given["associations"] == {"server": {"cluster_name": "production", "namespace": "ota", "service_account": "paperminder-ota"}}
    conditions = {condition["variable"]: condition["values"] for condition in given["trust_policy_conditions"]}
    assert conditions == {"aws:RequestTag/kubernetes-namespace": ["ota"], "aws:RequestTag/kubernetes-service-account": ["paperminder-ota"]}


def test_the_bucket_is_closed_kept_and_encrypted(minimal, complete):
    for given in (minimal["module.storage.module.bucket"], complete["module.storage.module.bucket"]):
        for name in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"):
            assert given[name] is True, name
        assert given["attach_deny_insecure_transport_policy"] and given["attach_require_latest_tls_policy"]
        assert given["versioning"] == {"enabled": True} and given["force_destroy"] is False
    encryption = minimal["module.storage.module.bucket"]["server_side_encryption_configuration"]["rule"]
    assert encryption["apply_server_side_encryption_by_default"]["sse_algorithm"] == "AES256"
    encryption = complete["module.storage.module.bucket"]["server_side_encryption_configuration"]["rule"]
    assert encryption["apply_server_side_encryption_by_default"]["sse_algorithm"] == "aws:kms" and encryption["bucket_key_enabled"]


def test_what_is_left_behind_goes_and_images_stay(complete):
    rules = {rule["id"]: rule for rule in complete["module.storage.module.bucket"]["lifecycle_rule"]}
    assert all(rule["enabled"] for rule in rules.values())
    assert rules["abort-incomplete-uploads"]["abort_incomplete_multipart_upload_days"] == 1
    assert rules["staging"]["filter"] == {"prefix": "staging/"} and rules["staging"]["expiration"] == {"days": 1}
    assert rules["old-versions"]["noncurrent_version_expiration"] == {"noncurrent_days": 180}
    expiring = [rule["id"] for rule in rules.values() if "days" in rule.get("expiration", {})]
    assert expiring == ["staging"], "a rule would remove images that printers are offered"


def test_cloudfront_answers_as_printers_need_it(complete):
    given = complete["module.cdn.module.distribution"]
    behaviors = [given["default_cache_behavior"], *given["ordered_cache_behavior"]]
    for behavior in behaviors:
        # A compressed answer has no Content-Length, and an update without one fails.
        assert behavior["compress"] is False
        assert behavior["trusted_key_groups"] == ["aws_cloudfront_key_group:paperminder-ota:id"]
        assert behavior["allowed_methods"] == ["GET", "HEAD"]
    assert [behavior["path_pattern"] for behavior in given["ordered_cache_behavior"]] == ["firmware/*"]
    assert given["ordered_cache_behavior"][0]["cache_policy_id"].startswith("aws_cloudfront_cache_policy:")
    assert given["origin_access_control"]["firmware"]["signing_behavior"] == "always"
    assert given["origin"]["firmware"]["origin_access_control_key"] in given["origin_access_control"]


def test_the_database_is_safe_from_its_operators(minimal, complete):
    for given in (minimal["module.database.module.instance"], complete["module.database.module.instance"]):
        for name in ("storage_encrypted", "multi_az", "deletion_protection", "manage_master_user_password"):
            assert given[name] is True, name
        for name in ("publicly_accessible", "skip_final_snapshot", "delete_automated_backups", "allow_major_version_upgrade", "apply_immediately"):
            assert given[name] is False, name
        assert given["performance_insights_enabled"] and given["backup_retention_period"] >= 7
        parameters = {parameter["name"]: parameter for parameter in given["parameters"]}
        assert parameters["rds.force_ssl"]["value"] == "1"
        # PostgreSQL reads this one at its start only; RDS refuses to set it at once.
        assert parameters["max_connections"]["apply_method"] == "pending-reboot"


def test_what_is_made_in_the_same_go_may_be_unknown(workspace):
    """Keys, groups and certificates are often made beside; then their ids are unknown while planning."""
    where = workspace.root(
        "unknown",
        """
        provider "aws" {
          region = "eu-central-1"
        }
        resource "terraform_data" "later" {
          input = {
            key   = "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d"
            group = "sg-0123456789abcdef0"
            cert  = "arn:aws:acm:us-east-1:111122223333:certificate/0a1b2c3d"
            logs  = "acme-logs"
          }
        }
        module "paperminder_ota" {
          source      = "../.."
          bucket      = "acme-firmware"
          kms_key_arn = terraform_data.later.output.key
          storage     = { access_logs = { bucket = terraform_data.later.output.logs } }
          identity    = { cluster_name = "production" }
          database = {
            vpc_id                  = "vpc-0123456789abcdef0"
            subnet_ids              = ["subnet-0", "subnet-1"]
            allowed_security_groups = { nodes = terraform_data.later.output.group }
          }
          cdn = {
            aliases         = ["firmware.example.com"]
            certificate_arn = terraform_data.later.output.cert
            signing_key     = "2026-11"

            log_bucket_domain_name = "${terraform_data.later.output.logs}.s3.amazonaws.com"

            public_keys = { for name in ["2026-11", "2027-05"] : name => file("../../examples/complete/keys/${name}.pub.pem") }
          }
        }
        """,
    )
    workspace.run(where, "apply", "-auto-approve", "-no-color")
    assert workspace.given(where)["module.storage.module.bucket"]["attach_policy"] is True


def test_a_rotation_of_keys_cuts_nobody_off(workspace):
    """The key that signs stays as it is, and an old one leaves the group before it is removed."""
    text = """
        provider "aws" {{
          region = "eu-central-1"
        }}
        module "cdn" {{
          source                      = "../../modules/cdn"
          name                        = "ota"
          bucket_regional_domain_name = "acme-firmware.s3.eu-central-1.amazonaws.com"
          signing_key                 = "{signing}"
          public_keys                 = {{ {keys} }}
        }}
        """
    keys = {"a": "2026-11", "b": "2027-05"}
    pem = {name: (TERRAFORM / f"examples/complete/keys/{file}.pub.pem").read_text() for name, file in keys.items()}
    # Another key, by its form: nobody signs with it here.
    pem["c"] = pem["b"].replace("+JulcztJ", "+JulcztK")
    assert pem["c"] != pem["b"]

    def put(signing, names):
        given = ", ".join(f"{name} = {json.dumps(pem[name])}" for name in names)
        where = workspace.root("rotation", text.format(signing=signing, keys=given))
        return where, workspace.run(where, "apply", "-auto-approve", "-no-color").stdout

    put("a", "ab")
    _, switched = put("b", "ab")
    assert "0 added, 0 changed, 0 destroyed" in switched, "to sign with the other key changes nothing at CloudFront"
    _, rotated = put("b", "bc")
    steps = ['signing["c"]: Creation complete', "signing: Modifications complete", 'signing["a"]: Destroying']
    places = [rotated.index(step) for step in steps]
    assert places == sorted(places), rotated
    assert 'signing["b"]:' not in re.sub(r".*Refreshing state.*", "", rotated), "the key that signs was touched"


def test_a_database_that_is_there_with_secrets_from_outside(workspace):
    where = workspace.root(
        "outside",
        """
        provider "aws" {
          region = "eu-central-1"
        }
        module "paperminder_ota" {
          source            = "../.."
          bucket            = "acme-firmware"
          identity          = { cluster_name = "production" }
          existing_database = { host = "postgres.example.com", owner = "paperminder_owner" }
          external_secrets  = { store_name = "aws", server_password = "prod/server", owner_password = "prod/owner" }
        }
        output "helm_values" {
          value = module.paperminder_ota.helm_values
        }
        """,
    )
    given = values(workspace, workspace.applied(where))
    assert given["externalSecrets"]["secrets"] == {
        "paperminder-ota-database": {"password": {"key": "prod/server"}},
        "paperminder-ota-database-owner": {"password": {"key": "prod/owner"}},
    }
    assert given["database"]["maxConnections"] == 0 and given["migrations"]["mode"] == "job"


def test_the_schema_has_what_is_used_and_nothing_else():
    used = {"resource": set(), "data": set()}
    for path in [TERRAFORM, *(TERRAFORM / "modules").iterdir(), *(TERRAFORM / "examples").iterdir()]:
        for kind, found in used.items():
            found.update(of for block in parse(path).get(kind, []) for of in block)
    assert used == {"resource": set(SCHEMA["resources"]), "data": set(SCHEMA["data_sources"])}
