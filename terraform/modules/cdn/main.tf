# CloudFront in front of the bucket. Printers are hard clients: HTTP/1.0, no redirects, no chunks, no compression, and
# an answer without Content-Length is a failed update. CloudFront gives them what S3 says as long as it does not compress.

locals {
  # Managed policy CachingDisabled: the same in every account, known before anything is made.
  caching_disabled = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"

  # A key's name holds its digest, so that another key under the same name is a new object, made before the old one goes.
  key_names = { for name, pem in var.public_keys : name => "${var.name}-${name}-${substr(sha256(trimspace(pem)), 0, 8)}" }

  http = var.viewer_protocol_policy == "allow-all"
  host = length(var.aliases) > 0 ? var.aliases[0] : module.distribution.cloudfront_distribution_domain_name
}

resource "aws_cloudfront_public_key" "signing" {
  for_each = var.public_keys

  name    = local.key_names[each.key]
  comment = "Signs download URLs of ${var.name}"
  # CloudFront keeps a line feed at the end; without one every plan would want to replace the key.
  encoded_key = "${trimspace(each.value)}\n"

  lifecycle {
    create_before_destroy = true # a key leaves the group before it goes
  }
}

# URLs signed with any of these keys are good. Rotation: add a key, let the server sign with it, remove the old one.
resource "aws_cloudfront_key_group" "signing" {
  name    = var.name
  comment = "Signs download URLs of ${var.name}"
  items   = [for key in aws_cloudfront_public_key.signing : key.id]
}

# An image never changes under its name, and the server writes no Cache-Control: a year, whatever the origin says. The
# query holds the signature, which differs from printer to printer, and must not be part of the cache's key.
resource "aws_cloudfront_cache_policy" "immutable" {
  name        = "${var.name}-immutable"
  comment     = "Images of ${var.name} never change under their names"
  min_ttl     = 31536000
  default_ttl = 31536000
  max_ttl     = 31536000

  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_brotli = false
    enable_accept_encoding_gzip   = false

    cookies_config {
      cookie_behavior = "none"
    }

    headers_config {
      header_behavior = "none"
    }

    query_strings_config {
      query_string_behavior = "none"
    }
  }
}

module "distribution" {
  source  = "terraform-aws-modules/cloudfront/aws"
  version = "~> 6.6"

  comment     = var.name
  aliases     = var.aliases
  price_class = var.price_class
  web_acl_id  = var.web_acl_arn
  tags        = var.tags

  origin_access_control = {
    firmware = {
      name             = var.name
      description      = "CloudFront reads the images of ${var.name}"
      origin_type      = "s3"
      signing_behavior = "always"
      signing_protocol = "sigv4"
    }
  }

  origin = {
    firmware = {
      domain_name               = var.bucket_regional_domain_name
      origin_access_control_key = "firmware"
    }
  }

  # Everything but images: the bucket's policy refuses it, and nobody without a signature gets as far as that.
  default_cache_behavior = {
    target_origin_id       = "firmware"
    viewer_protocol_policy = var.viewer_protocol_policy
    allowed_methods        = ["GET", "HEAD"]
    cached_methods         = ["GET", "HEAD"]
    compress               = false
    cache_policy_id        = local.caching_disabled
    trusted_key_groups     = [aws_cloudfront_key_group.signing.id]
  }

  ordered_cache_behavior = [
    {
      path_pattern           = "firmware/*"
      target_origin_id       = "firmware"
      viewer_protocol_policy = var.viewer_protocol_policy
      allowed_methods        = ["GET", "HEAD"]
      cached_methods         = ["GET", "HEAD"]
      compress               = false
      cache_policy_id        = aws_cloudfront_cache_policy.immutable.id
      trusted_key_groups     = [aws_cloudfront_key_group.signing.id]
    },
  ]

  # A printer that asked too early is not to be refused for longer than a moment.
  custom_error_response = [for code in [403, 404] : { error_code = code, error_caching_min_ttl = 1 }]

  viewer_certificate = var.certificate_arn == null ? {
    acm_certificate_arn            = null
    cloudfront_default_certificate = true
    minimum_protocol_version       = "TLSv1" # all that CloudFront takes with a certificate of its own
    ssl_support_method             = null
    } : {
    acm_certificate_arn            = var.certificate_arn
    cloudfront_default_certificate = false
    minimum_protocol_version       = var.minimum_protocol_version
    ssl_support_method             = "sni-only" # BearSSL of the ESP8266 sends SNI; addresses of one's own cost 600 USD a month
  }

  logging_config = var.log_bucket_domain_name == null ? null : {
    bucket          = var.log_bucket_domain_name
    include_cookies = false
    prefix          = "${var.name}/"
  }
}
