# What the chart helm/paperminder-ota is installed with. Names of Secrets, never secrets.

data "aws_region" "current" {}

locals {
  database = var.existing_database != null ? {
    host        = var.existing_database.host
    port        = var.existing_database.port
    name        = var.existing_database.name
    owner       = var.existing_database.owner
    connections = var.existing_database.server_connections
    ssl_mode    = var.existing_database.ssl_mode
    } : {
    host        = module.database[0].host
    port        = module.database[0].port
    name        = module.database[0].name
    owner       = module.database[0].owner
    connections = module.database[0].server_connections
    # RDS's certificates are signed by a CA that no image trusts by itself.
    ssl_mode = var.secrets.database_ca == null ? "require" : "verify-full"
  }

  # Secret -> key in it -> place in the store. RDS's own secret is JSON, the others are the value.
  external = var.external_secrets == null ? {} : merge(
    { (var.secrets.database) = { (var.secrets.database_key) = { key = var.external_secrets.server_password } } },
    local.database.owner == null ? {} : {
      (var.secrets.owner) = {
        (var.secrets.owner_key) = (
          var.database == null
          ? { key = var.external_secrets.owner_password }
          : { key = module.database[0].owner_secret_arn, property = "password" }
        )
      }
    },
    var.cdn == null ? {} : { (var.secrets.cdn) = { (var.secrets.cdn_key) = { key = var.external_secrets.cdn_private_key } } },
  )

  helm_values = merge(
    {
      database = merge(
        {
          host           = local.database.host
          port           = local.database.port
          name           = local.database.name
          user           = var.server_role
          sslMode        = local.database.ssl_mode
          existingSecret = var.secrets.database
          passwordKey    = var.secrets.database_key
          maxConnections = local.database.connections
        },
        var.secrets.database_ca == null ? {} : { caSecret = var.secrets.database_ca },
      )

      # A hook runs before the operator has made any Secret, so that a Job it is then.
      migrations = merge(
        { mode = var.external_secrets == null ? "hook" : "job" },
        local.database.owner == null ? {} : {
          user           = local.database.owner
          existingSecret = var.secrets.owner
          passwordKey    = var.secrets.owner_key
        },
      )

      s3 = {
        bucket = module.storage.bucket
        region = data.aws_region.current.region
      }

      delivery = var.cdn == null ? { mode = "presigned", cdn = {} } : {
        mode = "cdn"
        cdn = {
          baseUrl        = module.cdn[0].base_url
          keyPairId      = module.cdn[0].key_pair_id
          existingSecret = var.secrets.cdn
          privateKeyKey  = var.secrets.cdn_key
        }
      }

      serviceAccount = {
        create      = true
        name        = module.identity.service_account
        annotations = module.identity.service_account_annotations
      }
    },
    var.base_url == null ? {} : { baseUrl = var.base_url },
    length(var.settings) == 0 ? {} : { settings = var.settings },
    var.secrets.bootstrap_admin == null ? {} : {
      auth = { existingSecret = var.secrets.bootstrap_admin, bootstrapAdminKeyKey = var.secrets.bootstrap_key }
    },
    var.external_secrets == null ? {} : {
      externalSecrets = {
        enabled  = true
        storeRef = { name = var.external_secrets.store_name, kind = var.external_secrets.store_kind }
        secrets  = local.external
      }
    },
  )
}
