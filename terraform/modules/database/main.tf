# PostgreSQL on RDS. The owner's password is made and rotated by RDS in Secrets Manager: it never passes through
# Terraform, so that neither plan nor state holds it. The server connects as another role, which has less (README.md).

locals {
  port  = 5432
  major = split(".", var.engine_version)[0]

  # What the server must leave alone: 3 connections for superusers, 2 for RDS itself, and 10 for migrations,
  # `paperminder-ota` at a command line, and whoever looks on.
  reserved_connections = 15
}

resource "aws_security_group" "database" {
  name_prefix = "${var.name}-"
  description = "PostgreSQL of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = var.name })

  lifecycle {
    create_before_destroy = true # one in use cannot be removed
  }
}

# By group, never by address: a group follows its nodes and pods wherever they go. RDS opens no connections of its own,
# so nothing goes out.
resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.allowed_security_groups

  security_group_id            = aws_security_group.database.id
  description                  = "PostgreSQL from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  tags                         = var.tags
}

module "instance" {
  source  = "terraform-aws-modules/rds/aws"
  version = "~> 7.2"

  identifier = var.name
  tags       = var.tags

  engine                     = "postgres"
  engine_version             = var.engine_version
  family                     = "postgres${local.major}"
  major_engine_version       = local.major
  auto_minor_version_upgrade = true
  instance_class             = var.instance_class
  ca_cert_identifier         = "rds-ca-rsa2048-g1"

  db_name  = var.database_name
  port     = local.port
  username = var.owner

  manage_master_user_password                            = true
  master_user_secret_kms_key_id                          = var.kms_key_arn
  manage_master_user_password_rotation                   = var.owner_password_rotation_days != null
  master_user_password_rotate_immediately                = false
  master_user_password_rotation_automatically_after_days = var.owner_password_rotation_days

  storage_type          = "gp3"
  allocated_storage     = var.allocated_storage
  max_allocated_storage = var.max_allocated_storage
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  multi_az               = var.multi_az
  publicly_accessible    = false
  create_db_subnet_group = true
  db_subnet_group_name   = var.name
  subnet_ids             = var.subnet_ids
  vpc_security_group_ids = [aws_security_group.database.id]

  # Backups every day and the log all day long: any second of these days can be restored.
  backup_retention_period          = var.backup_retention_days
  backup_window                    = var.backup_window
  maintenance_window               = var.maintenance_window
  copy_tags_to_snapshot            = true
  delete_automated_backups         = false
  skip_final_snapshot              = var.skip_final_snapshot
  final_snapshot_identifier_prefix = "${var.name}-final"
  deletion_protection              = var.deletion_protection
  restore_to_point_in_time         = var.restore_to_point_in_time
  snapshot_identifier              = var.snapshot_identifier
  allow_major_version_upgrade      = var.allow_major_version_upgrade
  apply_immediately                = var.apply_immediately

  performance_insights_enabled          = true
  performance_insights_retention_period = var.performance_insights_days
  performance_insights_kms_key_id       = var.kms_key_arn
  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  create_cloudwatch_log_group           = true

  create_db_option_group    = false # PostgreSQL has no options
  create_db_parameter_group = true
  parameter_group_name      = var.name
  parameters = [
    {
      name         = "rds.force_ssl"
      value        = "1"
      apply_method = "immediate"
    },
    {
      name         = "max_connections"
      value        = tostring(var.max_connections)
      apply_method = "pending-reboot" # it needs a restart, by hand or in the maintenance window
    },
    {
      name         = "log_min_duration_statement"
      value        = "1000"
      apply_method = "immediate"
    },
  ]
}
