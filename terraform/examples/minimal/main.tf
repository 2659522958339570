# A bucket, a database and a role for a cluster that is there already. Images are downloaded straight from S3.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.27"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

module "paperminder_ota" {
  source = "../.."

  bucket = "acme-firmware"

  database = {
    vpc_id                  = "vpc-0123456789abcdef0"
    subnet_ids              = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    allowed_security_groups = { nodes = "sg-0123456789abcdef0" }
  }

  identity = {
    cluster_name = "production"
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
