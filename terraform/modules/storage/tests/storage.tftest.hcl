mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }
}

override_module {
  target = module.bucket
  outputs = {
    s3_bucket_id                          = "acme-firmware"
    s3_bucket_arn                         = "arn:aws:s3:::acme-firmware"
    s3_bucket_bucket_regional_domain_name = "acme-firmware.s3.eu-central-1.amazonaws.com"
  }
}

variables {
  bucket = "acme-firmware"
}

run "without_a_cdn_nobody_reads" {
  assert {
    condition     = output.reader_policy == null
    error_message = "The bucket's policy lets somebody read although there is no CDN."
  }
}

run "the_cdn_reads_images_alone" {
  variables {
    reader_distribution_arns = ["arn:aws:cloudfront::111122223333:distribution/E2EXAMPLE"]
  }

  assert {
    condition = jsondecode(output.reader_policy).Statement == [{
      Sid       = "CdnReadsImages"
      Effect    = "Allow"
      Principal = { Service = "cloudfront.amazonaws.com" }
      Action    = "s3:GetObject"
      Resource  = "arn:aws:s3:::acme-firmware/firmware/*"
      Condition = { StringEquals = { "aws:SourceArn" = ["arn:aws:cloudfront::111122223333:distribution/E2EXAMPLE"] } }
    }]
    error_message = "CloudFront may do something else than read firmware/*."
  }
}

run "a_bucket_without_dots" {
  command = plan

  variables {
    bucket = "Acme.Firmware"
  }

  expect_failures = [var.bucket]
}

run "a_key_by_its_arn" {
  command = plan

  variables {
    kms_key_arn = "alias/firmware"
  }

  expect_failures = [var.kms_key_arn]
}

run "removed_objects_are_kept" {
  command = plan

  variables {
    noncurrent_version_days = 0
  }

  expect_failures = [var.noncurrent_version_days]
}

run "readers_are_distributions" {
  command = plan

  variables {
    reader_distribution_arns = ["*"]
  }

  expect_failures = [var.reader_distribution_arns]
}
