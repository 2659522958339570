# A bucket and a role by IRSA, for a PostgreSQL that somebody else runs.

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

  bucket   = "acme-firmware"
  base_url = "https://ota.example.com"

  existing_database = {
    host               = "postgres.internal.example.com"
    owner              = "paperminder_owner"
    server_connections = 150
    ssl_mode           = "verify-full"
  }

  identity = {
    mode              = "irsa"
    oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
    namespace         = "ota"
  }

  secrets = {
    database_ca = "internal-ca"
  }
}

output "helm_values" {
  description = "Values for the chart."
  value       = module.paperminder_ota.helm_values
}
