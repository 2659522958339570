output "bucket" {
  description = "Name of the bucket (S3_BUCKET)."
  value       = module.bucket.s3_bucket_id
}

output "bucket_arn" {
  description = "Its ARN, for module identity."
  value       = module.bucket.s3_bucket_arn
}

output "bucket_regional_domain_name" {
  description = "Host of the bucket in its region, for module cdn."
  value       = module.bucket.s3_bucket_bucket_regional_domain_name
}

output "reader_policy" {
  description = "What the bucket's policy lets CloudFront do, as JSON; null without a distribution."
  value       = length(var.reader_distribution_arns) > 0 ? local.readers : null
}
