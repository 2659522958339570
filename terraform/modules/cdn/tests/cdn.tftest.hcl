mock_provider "aws" {}

override_module {
  target = module.distribution
  outputs = {
    cloudfront_distribution_arn            = "arn:aws:cloudfront::111122223333:distribution/E2EXAMPLE"
    cloudfront_distribution_id             = "E2EXAMPLE"
    cloudfront_distribution_domain_name    = "d111111abcdef8.cloudfront.net"
    cloudfront_distribution_hosted_zone_id = "Z2FDTNDATAQYW2"
  }
}

variables {
  name                        = "ota"
  bucket_regional_domain_name = "acme-firmware.s3.eu-central-1.amazonaws.com"
  signing_key                 = "first"
  public_keys = {
    first = <<-PEM
      -----BEGIN PUBLIC KEY-----
      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEswH3sP2Y1PjHBWHhrUZnKgsR/bVG
      kW7XwBny2IF7Qad9G1mKBQ6Aay/a7vtpod/EDznKc07n1Sc7VwbidXDXUg==
      -----END PUBLIC KEY-----
    PEM
    second = chomp(<<-PEM
      -----BEGIN PUBLIC KEY-----
      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAErDMpQraApzvB4Jtkq3KtZnoaXoEL
      +JulcztJ/+GTtf6oaqSYjZM2LQ8Os27ilo/q3KWlLh16as935yAEVN+UsA==
      -----END PUBLIC KEY-----
    PEM
    )
  }
}

run "both_keys_are_trusted" {
  assert {
    condition     = aws_cloudfront_key_group.signing.items == toset([for key in aws_cloudfront_public_key.signing : key.id])
    error_message = "The key group does not hold every public key."
  }

  assert {
    condition     = length(aws_cloudfront_public_key.signing) == 2 && output.key_pair_id == aws_cloudfront_public_key.signing["first"].id
    error_message = "The id given out is not that of the key that signs."
  }

  assert {
    condition     = alltrue([for key in aws_cloudfront_public_key.signing : endswith(key.encoded_key, "-----END PUBLIC KEY-----\n")])
    error_message = "A public key does not end as CloudFront keeps it, so that every plan would replace it."
  }

  assert {
    condition     = output.base_url == "https://d111111abcdef8.cloudfront.net"
    error_message = "Without an alias, URLs do not begin with CloudFront's own name."
  }
}

run "the_next_key_signs" {
  variables {
    signing_key = "second"
  }

  assert {
    condition     = output.key_pair_id == aws_cloudfront_public_key.signing["second"].id
    error_message = "The id given out is not that of the key that signs."
  }
}

run "images_are_cached_for_a_year_without_the_query" {
  assert {
    condition = alltrue([
      aws_cloudfront_cache_policy.immutable.min_ttl == 31536000,
      aws_cloudfront_cache_policy.immutable.max_ttl == 31536000,
      aws_cloudfront_cache_policy.immutable.parameters_in_cache_key_and_forwarded_to_origin[0].query_strings_config[0].query_string_behavior == "none",
      aws_cloudfront_cache_policy.immutable.parameters_in_cache_key_and_forwarded_to_origin[0].headers_config[0].header_behavior == "none",
      aws_cloudfront_cache_policy.immutable.parameters_in_cache_key_and_forwarded_to_origin[0].enable_accept_encoding_gzip == false,
    ])
    error_message = "Images are not cached as what never changes."
  }
}

run "plain_http_under_an_alias" {
  variables {
    aliases                = ["firmware.example.com"]
    certificate_arn        = "arn:aws:acm:us-east-1:111122223333:certificate/0a1b2c3d"
    viewer_protocol_policy = "allow-all"
  }

  assert {
    condition     = output.base_url == "http://firmware.example.com"
    error_message = "allow-all does not give printers URLs that they can fetch without TLS."
  }
}

run "one_key_is_not_enough" {
  command = plan

  variables {
    public_keys = { first = var.public_keys.first }
  }

  expect_failures = [var.public_keys]
}

run "the_same_key_twice_is_one" {
  command = plan

  variables {
    public_keys = { first = var.public_keys.first, second = var.public_keys.first }
  }

  expect_failures = [var.public_keys]
}

run "no_private_key_comes_in" {
  command = plan

  variables {
    public_keys = { first = var.public_keys.first, second = replace(var.public_keys.second, "PUBLIC", "EC PRIVATE") }
  }

  expect_failures = [var.public_keys]
}

run "no_rsa_whose_urls_are_long" {
  command = plan

  variables {
    public_keys = { first = var.public_keys.first, second = replace(var.public_keys.second, "MFkwEwYHKoZIzj0C", "MIIBIjANBgkqhkiG") }
  }

  expect_failures = [var.public_keys]
}

run "the_signing_key_is_one_of_them" {
  command = plan

  variables {
    signing_key = "third"
  }

  expect_failures = [var.signing_key]
}

run "an_alias_needs_a_certificate" {
  command = plan

  variables {
    aliases = ["firmware.example.com"]
  }

  expect_failures = [var.certificate_arn]
}

run "certificates_of_us_east_1" {
  command = plan

  variables {
    aliases         = ["firmware.example.com"]
    certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/0a1b2c3d"
  }

  expect_failures = [var.certificate_arn]
}

run "no_redirects" {
  command = plan

  variables {
    viewer_protocol_policy = "redirect-to-https"
  }

  expect_failures = [var.viewer_protocol_policy]
}

run "no_tls_that_a_printer_does_not_speak" {
  command = plan

  variables {
    minimum_protocol_version = "TLSv1.3_2025"
  }

  expect_failures = [var.minimum_protocol_version]
}
