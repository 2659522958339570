variable "name" {
  description = "Name of everything that is made: the database, the role, the key group."
  type        = string
  default     = "paperminder-ota"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9]|-[a-z0-9]){0,47}$", var.name))
    error_message = "Use up to 48 lower-case letters, digits and single hyphens, a letter first and no hyphen last, as in \"paperminder-ota\"."
  }
}

variable "bucket" {
  description = "Name of the bucket for images, unique in the world. It belongs to this installation alone."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits and hyphens, as in \"acme-firmware\"."
  }
}

variable "base_url" {
  description = "URL of the server as printers and browsers reach it (BASE_URL); when null, the chart makes it of its HTTPRoute's or Ingress's host."
  type        = string
  default     = null

  validation {
    condition     = var.base_url == null || can(regex("^https?://[^/?#]+$", var.base_url))
    error_message = "Give scheme and host, without a path or a slash at the end, as in \"https://ota.example.com\"."
  }
}

variable "kms_key_arn" {
  description = "KMS key for the bucket and the database; AWS's own keys when null. With a CDN, the key's policy must let CloudFront decrypt."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "Give the ARN of a key, as in \"arn:aws:kms:eu-central-1:111122223333:key/…\"."
  }
}

variable "storage" {
  description = "Further inputs of module storage."
  type = object({
    noncurrent_version_days = optional(number)
    access_logs             = optional(object({ bucket = string }))
    force_destroy           = optional(bool)
  })
  default  = {}
  nullable = false

  validation {
    condition = (
      var.storage.noncurrent_version_days == null ? true :
      var.storage.noncurrent_version_days >= try(coalesce(var.database.backup_retention_days, 14), 1)
    )
    error_message = "Keep removed images at least as long as the database's backups (database.backup_retention_days): a restored database would name images that are gone."
  }
}

variable "cdn" {
  description = "Inputs of module cdn; no CDN when null: then printers get presigned URLs of S3, or links of the server where these are too long."
  type = object({
    public_keys              = map(string)
    signing_key              = string
    aliases                  = optional(list(string))
    certificate_arn          = optional(string)
    minimum_protocol_version = optional(string)
    viewer_protocol_policy   = optional(string)
    price_class              = optional(string)
    log_bucket_domain_name   = optional(string)
    web_acl_arn              = optional(string)
  })
  default = null
}

variable "database" {
  description = "Inputs of module database; give existing_database instead for one that is there already."
  type = object({
    vpc_id                       = string
    subnet_ids                   = list(string)
    allowed_security_groups      = map(string)
    engine_version               = optional(string)
    instance_class               = optional(string)
    multi_az                     = optional(bool)
    allocated_storage            = optional(number)
    max_allocated_storage        = optional(number)
    max_connections              = optional(number)
    database_name                = optional(string)
    owner                        = optional(string)
    owner_password_rotation_days = optional(number)
    backup_retention_days        = optional(number)
    backup_window                = optional(string)
    maintenance_window           = optional(string)
    performance_insights_days    = optional(number)
    deletion_protection          = optional(bool)
    skip_final_snapshot          = optional(bool)
    allow_major_version_upgrade  = optional(bool)
    apply_immediately            = optional(bool)
    snapshot_identifier          = optional(string)
    restore_to_point_in_time = optional(object({
      source_db_instance_identifier = string
      restore_time                  = optional(string)
      use_latest_restorable_time    = optional(bool)
    }))
  })
  default = null

  validation {
    condition     = (var.database == null) != (var.existing_database == null)
    error_message = "Give either database, to make one, or existing_database, for one that is there already."
  }
}

variable "existing_database" {
  description = "A PostgreSQL 14 or newer that is there already: where it is, who owns the tables (the server's role when null), the connections it has to spare for the server (0 when unknown), and how to connect."
  type = object({
    host               = string
    port               = optional(number, 5432)
    name               = optional(string, "paperminder")
    owner              = optional(string)
    server_connections = optional(number, 0)
    ssl_mode           = optional(string, "require")
  })
  default = null

  validation {
    condition     = var.existing_database == null ? true : can(regex("^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", var.existing_database.host))
    error_message = "existing_database.host is a host name alone, without scheme, port or password."
  }

  validation {
    condition     = var.existing_database == null ? true : contains(["require", "verify-ca", "verify-full"], var.existing_database.ssl_mode)
    error_message = "existing_database.ssl_mode is require, verify-ca or verify-full; passwords do not go over the network in clear."
  }

  validation {
    condition     = var.existing_database == null ? true : var.existing_database.port >= 1 && var.existing_database.port <= 65535 && var.existing_database.server_connections >= 0
    error_message = "existing_database.port is 1 to 65535, server_connections 0 or more."
  }
}

variable "server_role" {
  description = "PostgreSQL role of the servers. Not the owner: `migrate --grant-to` gives it what servers need and no more. README.md says how to make it."
  type        = string
  default     = "paperminder"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.server_role))
    error_message = "Use up to 63 lower-case letters, digits and underscores, a letter first."
  }

  validation {
    condition     = var.server_role != try(coalesce(var.database.owner, "paperminder_owner"), null)
    error_message = "The servers' role must not be the owner of the tables, who may rewrite the audit trail."
  }
}

variable "identity" {
  description = "Inputs of module identity: how pods get their role, and where the server runs."
  type = object({
    mode                     = optional(string)
    cluster_name             = optional(string)
    oidc_provider_arn        = optional(string)
    namespace                = optional(string)
    service_account          = optional(string)
    permissions_boundary_arn = optional(string)
  })
  nullable = false
}

variable "secrets" {
  description = "Names of the Kubernetes Secrets that the chart reads, and the keys in them. The Secrets are made by you or by external_secrets, never here: whatever Terraform makes stands in its state. `database_ca` names one with RDS's CA bundle as `ca.crt`, and turns sslMode verify-full on."
  type = object({
    database        = optional(string, "paperminder-ota-database")
    database_key    = optional(string, "password")
    database_ca     = optional(string)
    owner           = optional(string, "paperminder-ota-database-owner")
    owner_key       = optional(string, "password")
    cdn             = optional(string, "paperminder-ota-cdn")
    cdn_key         = optional(string, "private-key.pem")
    bootstrap_admin = optional(string)
    bootstrap_key   = optional(string, "admin-key")
  })
  default  = {}
  nullable = false
}

variable "external_secrets" {
  description = "Let the External Secrets Operator make these Secrets: its store, and the names in Secrets Manager of the servers' password and of the CDN's private key (the whole secret is the value). The owner's password comes from RDS's own secret. Without it you make the Secrets."
  type = object({
    store_name      = string
    store_kind      = optional(string, "ClusterSecretStore")
    server_password = string
    cdn_private_key = optional(string)
    owner_password  = optional(string)
  })
  default = null

  validation {
    condition     = var.external_secrets == null ? true : contains(["SecretStore", "ClusterSecretStore"], var.external_secrets.store_kind)
    error_message = "external_secrets.store_kind is SecretStore or ClusterSecretStore."
  }

  validation {
    condition     = var.external_secrets == null || var.cdn == null ? true : var.external_secrets.cdn_private_key != null
    error_message = "With a CDN, external_secrets needs cdn_private_key, the name of the secret with the private key of cdn.signing_key."
  }

  validation {
    condition     = var.external_secrets == null ? true : (var.external_secrets.owner_password != null) == try(var.existing_database.owner != null, false)
    error_message = "external_secrets.owner_password goes with existing_database.owner; RDS keeps the owner's password of a database that is made here."
  }
}

variable "settings" {
  description = "Further settings of the server by name, as in { MAX_FIRMWARE_SIZE = \"2097152\" }."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "Settings are named as in the project's README, as in MAX_FIRMWARE_SIZE."
  }

  validation {
    condition     = alltrue([for name in keys(var.settings) : !can(regex("(PASSWORD|SECRET|_KEY|DATABASE_URL)$", name))])
    error_message = "No secret belongs here: it would stand in Terraform's state. The chart takes the names of Kubernetes Secrets."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
