variable "name" {
  description = "Name of the role and of its policy."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.name))
    error_message = "A role's name has 1 to 64 letters, digits and characters of _+=,.@-."
  }
}

variable "bucket_arn" {
  description = "ARN of the bucket; the output of the same name of module storage."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9.-]+$", var.bucket_arn))
    error_message = "Give the ARN of one bucket, without a path or wildcard, as in \"arn:aws:s3:::acme-firmware\"."
  }
}

variable "mode" {
  description = "How pods get the role: `pod-identity` (the EKS add-on eks-pod-identity-agent is installed) or `irsa` (the cluster's OpenID Connect provider is registered with IAM)."
  type        = string
  default     = "pod-identity"
  nullable    = false

  validation {
    condition     = contains(["pod-identity", "irsa"], var.mode)
    error_message = "Choose pod-identity or irsa."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster, for mode pod-identity."
  type        = string
  default     = null

  validation {
    condition     = (var.cluster_name != null) == (var.mode == "pod-identity")
    error_message = "Mode pod-identity needs cluster_name; mode irsa knows the cluster by oidc_provider_arn."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OpenID Connect provider in IAM, for mode irsa."
  type        = string
  default     = null

  validation {
    condition     = (var.oidc_provider_arn != null) == (var.mode == "irsa")
    error_message = "Mode irsa needs oidc_provider_arn; mode pod-identity knows the cluster by cluster_name."
  }

  validation {
    condition     = var.oidc_provider_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/", var.oidc_provider_arn))
    error_message = "Give the ARN of an OpenID Connect provider, as in \"arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/…\"."
  }
}

variable "namespace" {
  description = "Namespace of the server."
  type        = string
  default     = "paperminder"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace has up to 63 lower-case letters, digits and hyphens; wildcards are not taken."
  }
}

variable "service_account" {
  description = "Service account of the server; the chart makes it under this name."
  type        = string
  default     = "paperminder-ota"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "A service account has up to 253 lower-case letters, digits, dots and hyphens; wildcards are not taken."
  }
}

variable "kms_key_arns" {
  description = "KMS keys that the bucket is encrypted with; none for SSE-S3."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.kms_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "Give ARNs of keys, without wildcards, as in \"arn:aws:kms:eu-central-1:111122223333:key/…\"."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the role; none when null."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
