# All that PaperMinder OTA needs of AWS besides a Kubernetes cluster. Each module stands alone as well; this is how they
# fit together, and what comes out of it is the chart's values.

module "storage" {
  source = "./modules/storage"

  bucket                   = var.bucket
  kms_key_arn              = var.kms_key_arn
  noncurrent_version_days  = var.storage.noncurrent_version_days
  access_logs              = var.storage.access_logs
  force_destroy            = var.storage.force_destroy
  reader_distribution_arns = module.cdn[*].distribution_arn
  tags                     = var.tags
}

module "cdn" {
  source = "./modules/cdn"
  count  = var.cdn == null ? 0 : 1

  name                        = var.name
  bucket_regional_domain_name = module.storage.bucket_regional_domain_name
  public_keys                 = var.cdn.public_keys
  signing_key                 = var.cdn.signing_key
  aliases                     = var.cdn.aliases
  certificate_arn             = var.cdn.certificate_arn
  minimum_protocol_version    = var.cdn.minimum_protocol_version
  viewer_protocol_policy      = var.cdn.viewer_protocol_policy
  price_class                 = var.cdn.price_class
  log_bucket_domain_name      = var.cdn.log_bucket_domain_name
  web_acl_arn                 = var.cdn.web_acl_arn
  tags                        = var.tags
}

module "database" {
  source = "./modules/database"
  count  = var.database == null ? 0 : 1

  name                         = var.name
  vpc_id                       = var.database.vpc_id
  subnet_ids                   = var.database.subnet_ids
  allowed_security_groups      = var.database.allowed_security_groups
  engine_version               = var.database.engine_version
  instance_class               = var.database.instance_class
  multi_az                     = var.database.multi_az
  allocated_storage            = var.database.allocated_storage
  max_allocated_storage        = var.database.max_allocated_storage
  max_connections              = var.database.max_connections
  database_name                = var.database.database_name
  owner                        = var.database.owner
  owner_password_rotation_days = var.database.owner_password_rotation_days
  kms_key_arn                  = var.kms_key_arn
  backup_retention_days        = var.database.backup_retention_days
  backup_window                = var.database.backup_window
  maintenance_window           = var.database.maintenance_window
  performance_insights_days    = var.database.performance_insights_days
  deletion_protection          = var.database.deletion_protection
  skip_final_snapshot          = var.database.skip_final_snapshot
  allow_major_version_upgrade  = var.database.allow_major_version_upgrade
  apply_immediately            = var.database.apply_immediately
  snapshot_identifier          = var.database.snapshot_identifier
  restore_to_point_in_time     = var.database.restore_to_point_in_time
  tags                         = var.tags
}

module "identity" {
  source = "./modules/identity"

  name                     = var.name
  bucket_arn               = module.storage.bucket_arn
  mode                     = var.identity.mode
  cluster_name             = var.identity.cluster_name
  oidc_provider_arn        = var.identity.oidc_provider_arn
  namespace                = var.identity.namespace
  service_account          = var.identity.service_account
  permissions_boundary_arn = var.identity.permissions_boundary_arn
  kms_key_arns             = var.kms_key_arn == null ? [] : [var.kms_key_arn]
  tags                     = var.tags
}
