variable "name" {
  description = "Identifier of the instance, and name of what belongs to it."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([a-z0-9]|-[a-z0-9]){0,50}$", var.name))
    error_message = "Use up to 51 lower-case letters, digits and single hyphens, a letter first and no hyphen last, as in \"paperminder-ota\"."
  }
}

variable "vpc_id" {
  description = "VPC of the database."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-z]+$", var.vpc_id))
    error_message = "Give the id of a VPC, as in \"vpc-0123456789abcdef0\"."
  }
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS wants subnets in at least two zones, even for one instance."
  }
}

variable "allowed_security_groups" {
  description = "Security groups that may connect, by a name of your choosing (ids may be unknown while planning, names may not). The one of the cluster's nodes, or of the server's pods."
  type        = map(string)
  nullable    = false

  validation {
    condition     = length(var.allowed_security_groups) > 0
    error_message = "Nobody could connect. Give at least one group, as in { nodes = module.eks.node_security_group_id }."
  }

  validation {
    condition     = alltrue([for name in keys(var.allowed_security_groups) : can(regex("^[A-Za-z0-9._-]{1,64}$", name))])
    error_message = "A group's name here has 1 to 64 letters, digits, dots, hyphens and underscores; it stands in the rule's description."
  }

  validation {
    condition     = alltrue([for id in values(var.allowed_security_groups) : can(regex("^sg-[0-9a-z]+$", id))])
    error_message = "Give ids of security groups, as in \"sg-0123456789abcdef0\"; addresses are not taken."
  }
}

variable "engine_version" {
  description = "PostgreSQL's version; a major one alone follows its newest minor one."
  type        = string
  default     = "17"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]+(\\.[0-9]+)?$", var.engine_version)) && tonumber(split(".", var.engine_version)[0]) >= 14
    error_message = "The server needs PostgreSQL 14 or newer, as in \"17\" or \"17.6\"."
  }
}

variable "instance_class" {
  description = "Size of the instance; the project's docs/performance.md says what printers cost the database."
  type        = string
  default     = "db.m7g.large"
  nullable    = false

  validation {
    condition     = can(regex("^db\\.[a-z0-9-]+\\.[a-z0-9]+$", var.instance_class))
    error_message = "Give an RDS instance class, as in \"db.m7g.large\"."
  }
}

variable "multi_az" {
  description = "Keep a standby in another zone, which takes over within a minute or two."
  type        = bool
  default     = true
  nullable    = false
}

variable "allocated_storage" {
  description = "Storage in GiB at the start."
  type        = number
  default     = 50
  nullable    = false

  validation {
    condition     = var.allocated_storage >= 20
    error_message = "gp3 storage begins at 20 GiB."
  }
}

variable "max_allocated_storage" {
  description = "GiB up to which storage grows by itself."
  type        = number
  default     = 500
  nullable    = false

  validation {
    condition     = var.max_allocated_storage > var.allocated_storage
    error_message = "max_allocated_storage must be above allocated_storage, or a full disk stops the database."
  }
}

variable "max_connections" {
  description = "PostgreSQL's max_connections, set rather than left to the instance's memory, so that the chart can compare it with what all replicas may open. Some 10 MiB of memory each."
  type        = number
  default     = 200
  nullable    = false

  validation {
    condition     = var.max_connections >= 50 && var.max_connections <= 5000 && floor(var.max_connections) == var.max_connections
    error_message = "Allow 50 to 5000 connections: 15 are kept back, and each replica of the server holds up to 21."
  }
}

variable "database_name" {
  description = "Database to make."
  type        = string
  default     = "paperminder"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.database_name))
    error_message = "Use up to 63 lower-case letters, digits and underscores, a letter first."
  }
}

variable "owner" {
  description = "RDS's master user, which owns the tables and runs migrations. The server connects as another role."
  type        = string
  default     = "paperminder_owner"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.owner)) && !contains(["admin", "postgres", "rdsadmin"], var.owner)
    error_message = "Use up to 63 lower-case letters, digits and underscores, a letter first; RDS keeps admin and rdsadmin to itself, and postgres says nothing."
  }
}

variable "owner_password_rotation_days" {
  description = "Days after which RDS changes the owner's password; RDS's own seven when null. Servers do not notice: only migrations use it."
  type        = number
  default     = null

  validation {
    condition     = var.owner_password_rotation_days == null ? true : var.owner_password_rotation_days >= 1 && var.owner_password_rotation_days <= 1000
    error_message = "Rotate after 1 to 1000 days."
  }
}

variable "kms_key_arn" {
  description = "KMS key for storage, the owner's secret and performance insights; AWS's own keys when null."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "Give the ARN of a key, as in \"arn:aws:kms:eu-central-1:111122223333:key/…\"."
  }
}

variable "backup_retention_days" {
  description = "Days back to which the database can be restored, to the second."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 35
    error_message = "Keep backups for 1 to 35 days; 0 would turn them off."
  }
}

variable "backup_window" {
  description = "Time of the daily backup, UTC; not within maintenance_window."
  type        = string
  default     = "02:00-03:00"
  nullable    = false

  validation {
    condition     = can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$", var.backup_window))
    error_message = "Give a window as in \"02:00-03:00\"."
  }
}

variable "maintenance_window" {
  description = "Time of weekly maintenance, UTC. A standby takes over, and servers connect again."
  type        = string
  default     = "sun:04:00-sun:05:00"
  nullable    = false

  validation {
    condition     = can(regex("^(mon|tue|wed|thu|fri|sat|sun):([01][0-9]|2[0-3]):[0-5][0-9]-(mon|tue|wed|thu|fri|sat|sun):([01][0-9]|2[0-3]):[0-5][0-9]$", var.maintenance_window))
    error_message = "Give a window as in \"sun:04:00-sun:05:00\"."
  }
}

variable "performance_insights_days" {
  description = "Days that Performance Insights looks back; seven cost nothing."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = contains(concat([7, 731], [for month in range(1, 24) : month * 31]), var.performance_insights_days)
    error_message = "RDS takes 7, 731, or a multiple of 31 up to 713 days."
  }
}

variable "deletion_protection" {
  description = "Refuse to remove the database."
  type        = bool
  default     = true
  nullable    = false
}

variable "skip_final_snapshot" {
  description = "Remove the database without a last snapshot. For trials only."
  type        = bool
  default     = false
  nullable    = false
}

variable "allow_major_version_upgrade" {
  description = "Let a new major version in engine_version replace the old one. It stops the database for minutes and cannot be undone: take a snapshot, set this for that one apply, with apply_immediately."
  type        = bool
  default     = false
  nullable    = false
}

variable "apply_immediately" {
  description = "Make changes at once, restarts included, instead of in the maintenance window."
  type        = bool
  default     = false
  nullable    = false
}

variable "snapshot_identifier" {
  description = "Snapshot to begin with, for a restore under another name; none when null."
  type        = string
  default     = null
}

variable "restore_to_point_in_time" {
  description = "Instance and time to begin with, for a restore under another name, as in { source_db_instance_identifier = \"paperminder-ota\", restore_time = \"2026-11-22T03:04:05Z\" }; none when null."
  type = object({
    source_db_instance_identifier = string
    restore_time                  = optional(string)
    use_latest_restorable_time    = optional(bool)
  })
  default = null

  validation {
    condition     = var.restore_to_point_in_time == null ? true : (var.restore_to_point_in_time.restore_time != null) != (var.restore_to_point_in_time.use_latest_restorable_time == true)
    error_message = "Give either restore_time or use_latest_restorable_time = true."
  }

  validation {
    condition     = var.restore_to_point_in_time == null || var.snapshot_identifier == null
    error_message = "A database begins with a snapshot or a point in time, not with both."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
  nullable    = false
}
