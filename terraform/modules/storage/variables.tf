variable "bucket" {
  description = "Name of the bucket, unique in the world. It belongs to one installation alone: the server removes what its database does not know."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens (no dots: S3's certificate does not cover them), as in \"acme-firmware\"."
  }
}

variable "kms_key_arn" {
  description = "KMS key that objects are encrypted with; S3's own keys (SSE-S3) when null. With a CDN in front, the key's policy must let CloudFront decrypt."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "Give the ARN of a key, as in \"arn:aws:kms:eu-central-1:111122223333:key/…\"; aliases do not work in policies."
  }
}

variable "noncurrent_version_days" {
  description = "Days that removed or overwritten objects can be brought back. Not below the days of the database's backups: a restored database names images that were removed since."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.noncurrent_version_days >= 1 && var.noncurrent_version_days <= 3650 && floor(var.noncurrent_version_days) == var.noncurrent_version_days
    error_message = "Keep removed objects for 1 to 3650 whole days."
  }
}

variable "reader_distribution_arns" {
  description = "ARNs of the CloudFront distributions that may read firmware/*; the output `distribution_arn` of module cdn."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.reader_distribution_arns : can(regex("^arn:aws[a-z-]*:cloudfront::[0-9]{12}:distribution/", arn))])
    error_message = "Give ARNs of CloudFront distributions, as in \"arn:aws:cloudfront::111122223333:distribution/E2EXAMPLE\"."
  }
}

variable "access_logs" {
  description = "Bucket that S3 writes access logs to; none when null."
  type = object({
    bucket = string
  })
  default = null
}

variable "force_destroy" {
  description = "Let `terraform destroy` remove the bucket with every image in it. For trials only."
  type        = bool
  default     = false
  nullable    = false
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
