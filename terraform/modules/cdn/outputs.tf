output "distribution_arn" {
  description = "ARN of the distribution, for `reader_distribution_arns` of module storage."
  value       = module.distribution.cloudfront_distribution_arn
}

output "distribution_id" {
  description = "Id of the distribution, for invalidations."
  value       = module.distribution.cloudfront_distribution_id
}

output "domain_name" {
  description = "CloudFront's own host name, which DNS records of the aliases point to."
  value       = module.distribution.cloudfront_distribution_domain_name
}

output "hosted_zone_id" {
  description = "Route 53's zone of that name, for alias records."
  value       = module.distribution.cloudfront_distribution_hosted_zone_id
}

output "base_url" {
  description = "What download URLs begin with (CDN_BASE_URL)."
  value       = "${local.http ? "http" : "https"}://${local.host}"
}

output "key_pair_id" {
  description = "Id of the key that signs (CDN_KEY_PAIR_ID)."
  value       = aws_cloudfront_public_key.signing[var.signing_key].id
}

output "key_pair_ids" {
  description = "Ids of all keys by name, for a rotation."
  value       = { for name, key in aws_cloudfront_public_key.signing : name => key.id }
}

output "key_group_id" {
  description = "Id of the key group."
  value       = aws_cloudfront_key_group.signing.id
}
