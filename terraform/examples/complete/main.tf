# Everything: a CDN under a name of its own, a key of one's own for what is at rest, Secrets by the External Secrets
# Operator, and what production wants to have said.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.27"
    }
  }

  # The state holds no secret, but whoever writes it says what is made: keep it where few can, with a lock.
  # backend "s3" {
  #   bucket       = "acme-terraform-state"
  #   key          = "paperminder-ota"
  #   region       = "eu-central-1"
  #   use_lockfile = true
  # }
}

provider "aws" {
  region = "eu-central-1"
}

module "paperminder_ota" {
  source = "../.."

  name        = "paperminder-ota"
  bucket      = "acme-firmware"
  base_url    = "https://ota.example.com"
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d-1111-2222-3333-444455556666"

  storage = {
    noncurrent_version_days = 180
    access_logs             = { bucket = "acme-logs" }
  }

  cdn = {
    public_keys = {
      "2026-11" = file("${path.module}/keys/2026-11.pub.pem")
      "2027-05" = file("${path.module}/keys/2027-05.pub.pem")
    }
    signing_key            = "2026-11"
    aliases                = ["firmware.example.com"]
    certificate_arn        = "arn:aws:acm:us-east-1:111122223333:certificate/0a1b2c3d-1111-2222-3333-444455556666"
    viewer_protocol_policy = "allow-all" # printers without memory for TLS
    price_class            = "PriceClass_200"
    log_bucket_domain_name = "acme-logs.s3.amazonaws.com"
  }

  database = {
    vpc_id                       = "vpc-0123456789abcdef0"
    subnet_ids                   = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
    allowed_security_groups      = { nodes = "sg-0123456789abcdef0" }
    instance_class               = "db.m7g.xlarge"
    max_connections              = 400
    allocated_storage            = 100
    max_allocated_storage        = 1000
    backup_retention_days        = 35
    owner_password_rotation_days = 30
  }

  identity = {
    cluster_name = "production"
    namespace    = "ota"
  }

  secrets = {
    database_ca = "rds-ca"
  }

  external_secrets = {
    store_name      = "aws-secrets-manager"
    server_password = "prod/paperminder-ota/database"
    cdn_private_key = "prod/paperminder-ota/cdn-2026-11"
  }

  settings = {
    MAX_FIRMWARE_SIZE = "2097152"
    PRINTER_AUTH      = "registered"
  }

  tags = {
    service = "paperminder-ota"
    owner   = "devices"
  }
}

output "helm_values" {
  description = "Values for the chart."
  value       = module.paperminder_ota.helm_values
}

output "namespace" {
  description = "Namespace to install into."
  value       = module.paperminder_ota.namespace
}

output "database_host" {
  description = "Host of the database."
  value       = module.paperminder_ota.database_host
}

output "database_owner_secret_arn" {
  description = "Where RDS keeps the owner's password."
  value       = module.paperminder_ota.database_owner_secret_arn
}

output "cdn_domain_name" {
  description = "Where the DNS record of firmware.example.com points to."
  value       = module.paperminder_ota.cdn_domain_name
}
