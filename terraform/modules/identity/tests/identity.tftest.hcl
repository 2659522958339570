mock_provider "aws" {}

override_module {
  target = module.pod_identity
  outputs = {
    iam_role_arn = "arn:aws:iam::111122223333:role/by-pod-identity"
  }
}

override_module {
  target = module.irsa
  outputs = {
    arn = "arn:aws:iam::111122223333:role/by-irsa"
  }
}

variables {
  name         = "ota"
  bucket_arn   = "arn:aws:s3:::acme-firmware"
  cluster_name = "production"
}

run "the_bucket_and_two_folders" {
  assert {
    condition = jsondecode(output.policy).Statement == [
      {
        Sid      = "Bucket"
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
        Resource = "arn:aws:s3:::acme-firmware"
      },
      {
        Sid      = "Folders"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = ["arn:aws:s3:::acme-firmware/firmware/*", "arn:aws:s3:::acme-firmware/staging/*"]
      },
    ]
    error_message = "The role may do something else than SECURITY.md says."
  }

  assert {
    condition     = output.role_arn == "arn:aws:iam::111122223333:role/by-pod-identity" && length(output.service_account_annotations) == 0
    error_message = "Pod identity needs no annotation."
  }
}

run "keys_of_the_bucket" {
  variables {
    kms_key_arns = ["arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d"]
  }

  assert {
    condition = jsondecode(output.policy).Statement[2] == {
      Sid      = "Keys"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = ["arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d"]
    }
    error_message = "The role cannot use the bucket's key, or others too."
  }
}

run "irsa_by_an_annotation" {
  variables {
    mode              = "irsa"
    cluster_name      = null
    oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
  }

  assert {
    condition     = output.service_account_annotations == tomap({ "eks.amazonaws.com/role-arn" = "arn:aws:iam::111122223333:role/by-irsa" })
    error_message = "The service account does not name the role."
  }
}

run "irsa_needs_the_provider" {
  command = plan

  variables {
    mode         = "irsa"
    cluster_name = null
  }

  expect_failures = [var.oidc_provider_arn]
}

run "pod_identity_needs_the_cluster" {
  command = plan

  variables {
    cluster_name = null
  }

  expect_failures = [var.cluster_name]
}

run "one_bucket" {
  command = plan

  variables {
    bucket_arn = "arn:aws:s3:::*"
  }

  expect_failures = [var.bucket_arn]
}

run "one_service_account" {
  command = plan

  variables {
    service_account = "*"
  }

  expect_failures = [var.service_account]
}

run "one_namespace" {
  command = plan

  variables {
    namespace = "*"
  }

  expect_failures = [var.namespace]
}

run "keys_without_wildcards" {
  command = plan

  variables {
    kms_key_arns = ["*"]
  }

  expect_failures = [var.kms_key_arns]
}
