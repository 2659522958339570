mock_provider "aws" {}

override_module {
  target = module.instance
  outputs = {
    db_instance_address                = "ota.c9akciq32.eu-central-1.rds.amazonaws.com"
    db_instance_arn                    = "arn:aws:rds:eu-central-1:111122223333:db:ota"
    db_instance_master_user_secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-0a1b"
  }
}

variables {
  name                    = "ota"
  vpc_id                  = "vpc-0123456789abcdef0"
  subnet_ids              = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  allowed_security_groups = { nodes = "sg-0123456789abcdef0" }
}

run "groups_get_in_and_nobody_else" {
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.clients) == 1
    error_message = "There is not one rule for one group."
  }

  assert {
    condition = alltrue([
      aws_vpc_security_group_ingress_rule.clients["nodes"].referenced_security_group_id == "sg-0123456789abcdef0",
      aws_vpc_security_group_ingress_rule.clients["nodes"].security_group_id == aws_security_group.database.id,
      aws_vpc_security_group_ingress_rule.clients["nodes"].cidr_ipv4 == null,
      aws_vpc_security_group_ingress_rule.clients["nodes"].cidr_ipv6 == null,
      aws_vpc_security_group_ingress_rule.clients["nodes"].from_port == 5432,
      aws_vpc_security_group_ingress_rule.clients["nodes"].to_port == 5432,
    ])
    error_message = "The rule lets in something else than the group, to PostgreSQL."
  }

  assert {
    condition     = output.max_connections == 200 && output.server_connections == 185
    error_message = "The server is promised connections that others need."
  }
}

run "two_zones" {
  command = plan

  variables {
    subnet_ids = ["subnet-0123456789abcdef0"]
  }

  expect_failures = [var.subnet_ids]
}

run "no_addresses" {
  command = plan

  variables {
    allowed_security_groups = { everybody = "0.0.0.0/0" }
  }

  expect_failures = [var.allowed_security_groups]
}

run "somebody_connects" {
  command = plan

  variables {
    allowed_security_groups = {}
  }

  expect_failures = [var.allowed_security_groups]
}

run "backups_are_kept" {
  command = plan

  variables {
    backup_retention_days = 0
  }

  expect_failures = [var.backup_retention_days]
}

run "postgresql_14_or_newer" {
  command = plan

  variables {
    engine_version = "13.20"
  }

  expect_failures = [var.engine_version]
}

run "enough_connections" {
  command = plan

  variables {
    max_connections = 20
  }

  expect_failures = [var.max_connections]
}

run "storage_grows" {
  command = plan

  variables {
    allocated_storage     = 100
    max_allocated_storage = 100
  }

  expect_failures = [var.max_allocated_storage]
}

run "a_restore_begins_with_one_thing" {
  command = plan

  variables {
    snapshot_identifier      = "before"
    restore_to_point_in_time = { source_db_instance_identifier = "ota", use_latest_restorable_time = true }
  }

  expect_failures = [var.restore_to_point_in_time]
}

run "a_restore_needs_a_time" {
  command = plan

  variables {
    restore_to_point_in_time = { source_db_instance_identifier = "ota" }
  }

  expect_failures = [var.restore_to_point_in_time]
}
