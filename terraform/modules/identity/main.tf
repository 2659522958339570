# What the server may do in AWS, and nothing else: SECURITY.md has the same list. Pods get it by pod identity, or by
# IRSA where the agent of pod identity is not there; either way there is no key to keep, leak or rotate.

locals {
  pod_identity = var.mode == "pod-identity"

  in_bucket = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
  in_folders = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
  ]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        # Without a condition on the prefix: the server asks whether the bucket is there, and then no prefix is given.
        Sid      = "Bucket"
        Effect   = "Allow"
        Action   = local.in_bucket
        Resource = var.bucket_arn
      },
      {
        Sid      = "Folders"
        Effect   = "Allow"
        Action   = local.in_folders
        Resource = ["${var.bucket_arn}/firmware/*", "${var.bucket_arn}/staging/*"]
      },
      ], length(var.kms_key_arns) == 0 ? [] : [
      {
        # GenerateDataKey to write, Decrypt to read and for the parts of an upload.
        Sid      = "Keys"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.kms_key_arns
      },
    ])
  })

  role_arn = local.pod_identity ? one(module.pod_identity[*].iam_role_arn) : one(module.irsa[*].arn)
}

module "pod_identity" {
  source  = "terraform-aws-modules/eks-pod-identity/aws"
  version = "~> 2.8"
  count   = local.pod_identity ? 1 : 0

  name                      = var.name
  use_name_prefix           = false
  description               = "Role of ${var.name}'s pods"
  permissions_boundary_arn  = var.permissions_boundary_arn
  attach_custom_policy      = true
  custom_policy_description = "What ${var.name} may do in its bucket"
  source_policy_documents   = [local.policy]
  tags                      = var.tags

  # The role refuses other pods even when somebody associates it with theirs.
  trust_policy_conditions = [
    {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [var.namespace]
    },
    {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [var.service_account]
    },
  ]

  associations = {
    server = {
      cluster_name    = var.cluster_name
      namespace       = var.namespace
      service_account = var.service_account
    }
  }
}

module "irsa" {
  source  = "terraform-aws-modules/iam/aws//modules/iam-role-for-service-accounts"
  version = "~> 6.5"
  count   = local.pod_identity ? 0 : 1

  name                    = var.name
  use_name_prefix         = false
  description             = "Role of ${var.name}'s pods"
  permissions_boundary    = var.permissions_boundary_arn
  policy_name             = var.name
  policy_description      = "What ${var.name} may do in its bucket"
  source_policy_documents = [local.policy]
  tags                    = var.tags

  oidc_providers = {
    cluster = {
      provider_arn               = var.oidc_provider_arn
      namespace_service_accounts = ["${var.namespace}:${var.service_account}"]
    }
  }
}
