terraform {
  required_version = ">= 1.11" # as the registry's module for RDS

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.27"
    }
  }
}
