output "helm_values" {
  description = "Values for the chart: `terraform output -raw helm_values | helm upgrade --install paperminder-ota helm/paperminder-ota -n <namespace> -f -`."
  value       = yamlencode(local.helm_values)
}

output "namespace" {
  description = "Namespace that the chart must be installed into: the role is for this one alone."
  value       = module.identity.namespace
}

output "bucket" {
  description = "Name of the bucket."
  value       = module.storage.bucket
}

output "role_arn" {
  description = "ARN of the server's role."
  value       = module.identity.role_arn
}

output "database_host" {
  description = "Host of the database."
  value       = local.database.host
}

output "database_owner_secret_arn" {
  description = "Secret of Secrets Manager with the owner's password; null with existing_database. The ARN is no secret."
  value       = one(module.database[*].owner_secret_arn)
}

output "cdn_domain_name" {
  description = "CloudFront's host name, which DNS records of cdn.aliases point to; null without a CDN."
  value       = one(module.cdn[*].domain_name)
}

output "cdn_key_pair_ids" {
  description = "Ids of the CDN's public keys by name, for a rotation; null without a CDN."
  value       = one(module.cdn[*].key_pair_ids)
}
