mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }
  mock_data "aws_region" {
    defaults = {
      region = "eu-central-1"
    }
  }
}

override_module {
  target = module.storage.module.bucket
  outputs = {
    s3_bucket_id                          = "acme-firmware"
    s3_bucket_arn                         = "arn:aws:s3:::acme-firmware"
    s3_bucket_bucket_regional_domain_name = "acme-firmware.s3.eu-central-1.amazonaws.com"
  }
}

override_module {
  target = module.cdn[0].module.distribution
  outputs = {
    cloudfront_distribution_arn            = "arn:aws:cloudfront::111122223333:distribution/E2EXAMPLE"
    cloudfront_distribution_id             = "E2EXAMPLE"
    cloudfront_distribution_domain_name    = "d111111abcdef8.cloudfront.net"
    cloudfront_distribution_hosted_zone_id = "Z2FDTNDATAQYW2"
  }
}

override_module {
  target = module.database[0].module.instance
  outputs = {
    db_instance_address                = "paperminder-ota.c9akciq32.eu-central-1.rds.amazonaws.com"
    db_instance_arn                    = "arn:aws:rds:eu-central-1:111122223333:db:paperminder-ota"
    db_instance_master_user_secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-0a1b"
  }
}

override_module {
  target = module.identity.module.pod_identity
  outputs = {
    iam_role_arn = "arn:aws:iam::111122223333:role/paperminder-ota"
  }
}

variables {
  bucket   = "acme-firmware"
  identity = { cluster_name = "production" }
  database = {
    vpc_id                  = "vpc-0123456789abcdef0"
    subnet_ids              = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    allowed_security_groups = { nodes = "sg-0123456789abcdef0" }
  }
}

run "values_of_the_smallest_installation" {
  assert {
    condition = yamldecode(output.helm_values) == {
      database = {
        host           = "paperminder-ota.c9akciq32.eu-central-1.rds.amazonaws.com"
        port           = 5432
        name           = "paperminder"
        user           = "paperminder"
        sslMode        = "require"
        existingSecret = "paperminder-ota-database"
        passwordKey    = "password"
        maxConnections = 185
      }
      migrations = {
        mode           = "hook"
        user           = "paperminder_owner"
        existingSecret = "paperminder-ota-database-owner"
        passwordKey    = "password"
      }
      s3             = { bucket = "acme-firmware", region = "eu-central-1" }
      delivery       = { mode = "presigned", cdn = {} }
      serviceAccount = { create = true, name = "paperminder-ota", annotations = {} }
    }
    error_message = "The chart's values are not those of the smallest installation."
  }
}

run "the_cdn_signs_and_secrets_come_from_outside" {
  variables {
    cdn = {
      signing_key = "second"
      public_keys = {
        first  = <<-PEM
          -----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEswH3sP2Y1PjHBWHhrUZnKgsR/bVG
          kW7XwBny2IF7Qad9G1mKBQ6Aay/a7vtpod/EDznKc07n1Sc7VwbidXDXUg==
          -----END PUBLIC KEY-----
        PEM
        second = <<-PEM
          -----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAErDMpQraApzvB4Jtkq3KtZnoaXoEL
          +JulcztJ/+GTtf6oaqSYjZM2LQ8Os27ilo/q3KWlLh16as935yAEVN+UsA==
          -----END PUBLIC KEY-----
        PEM
      }
    }
    secrets          = { database_ca = "rds-ca" }
    external_secrets = { store_name = "aws", server_password = "prod/database", cdn_private_key = "prod/cdn" }
  }

  assert {
    condition = yamldecode(output.helm_values).delivery == {
      mode = "cdn"
      cdn = {
        baseUrl        = "https://d111111abcdef8.cloudfront.net"
        keyPairId      = output.cdn_key_pair_ids["second"]
        existingSecret = "paperminder-ota-cdn"
        privateKeyKey  = "private-key.pem"
      }
    }
    error_message = "Images are not delivered by the CDN, signed with the key that was named."
  }

  assert {
    condition = alltrue([
      yamldecode(output.helm_values).database.sslMode == "verify-full",
      yamldecode(output.helm_values).database.caSecret == "rds-ca",
      yamldecode(output.helm_values).migrations.mode == "job",
      yamldecode(output.helm_values).externalSecrets.secrets["paperminder-ota-database-owner"].password == {
        key      = output.database_owner_secret_arn
        property = "password"
      },
    ])
    error_message = "Secrets do not come from outside, or come too late for a hook."
  }
}

run "a_database_one_way_or_the_other" {
  command = plan

  variables {
    existing_database = { host = "postgres.example.com" }
  }

  expect_failures = [var.database]
}

run "servers_are_not_the_owner" {
  command = plan

  variables {
    server_role = "paperminder_owner"
  }

  expect_failures = [var.server_role]
}

run "images_outlive_backups" {
  command = plan

  variables {
    storage = { noncurrent_version_days = 7 }
  }

  expect_failures = [var.storage]
}

run "no_secret_among_settings" {
  command = plan

  variables {
    settings = { DATABASE_PASSWORD = "hunter2" }
  }

  expect_failures = [var.settings]
}

run "passwords_go_encrypted" {
  command = plan

  variables {
    database          = null
    existing_database = { host = "postgres.example.com", ssl_mode = "disable" }
  }

  expect_failures = [var.existing_database]
}
