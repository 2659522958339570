# The bucket of the images. Objects under firmware/ are written once and never again, so that whatever caches them is
# right for ever; staging/ is where uploads wait to be checked, and what lies there longer than a day was left behind.

data "aws_partition" "current" {}

locals {
  arn = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}"

  # CloudFront reads images and nothing else: staging/ holds what nobody has checked yet.
  readers = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "CdnReadsImages"
      Effect    = "Allow"
      Principal = { Service = "cloudfront.amazonaws.com" }
      Action    = "s3:GetObject"
      Resource  = "${local.arn}/firmware/*"
      Condition = { StringEquals = { "aws:SourceArn" = var.reader_distribution_arns } }
    }]
  })
}

module "bucket" {
  source  = "terraform-aws-modules/s3-bucket/aws"
  version = "~> 5.15"

  bucket        = var.bucket
  force_destroy = var.force_destroy
  tags          = var.tags

  # No ACLs: whoever may do what is said by policies alone.
  control_object_ownership = true
  object_ownership         = "BucketOwnerEnforced"

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true

  attach_deny_insecure_transport_policy = true
  attach_require_latest_tls_policy      = true

  # The length is known while ARNs are not, so that bucket and CDN may be made in one go.
  attach_policy = length(var.reader_distribution_arns) > 0
  policy        = local.readers

  versioning = {
    enabled = true
  }

  server_side_encryption_configuration = {
    rule = {
      bucket_key_enabled = var.kms_key_arn != null
      apply_server_side_encryption_by_default = {
        sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
        kms_master_key_id = var.kms_key_arn
      }
    }
  }

  lifecycle_rule = [
    {
      id                                     = "abort-incomplete-uploads"
      enabled                                = true
      abort_incomplete_multipart_upload_days = 1
    },
    {
      id      = "staging"
      enabled = true
      filter = {
        prefix = "staging/"
      }
      expiration = {
        days = 1
      }
      # Nobody wants back what was never released; of two rules S3 follows the one that removes earlier.
      noncurrent_version_expiration = {
        noncurrent_days = 1
      }
    },
    {
      id      = "old-versions"
      enabled = true
      expiration = {
        expired_object_delete_marker = true
      }
      noncurrent_version_expiration = {
        noncurrent_days = var.noncurrent_version_days
      }
    },
  ]

  logging = var.access_logs == null ? null : {
    target_bucket = var.access_logs.bucket
    target_prefix = "${var.bucket}/"
  }
}
