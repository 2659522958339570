output "host" {
  description = "Host of the database; it stays the same when the standby takes over."
  value       = module.instance.db_instance_address
}

output "port" {
  description = "Its port."
  value       = local.port
}

output "name" {
  description = "Name of the database."
  value       = var.database_name
}

output "owner" {
  description = "Role that owns the tables and runs migrations."
  value       = var.owner
}

output "owner_secret_arn" {
  description = "Secret of Secrets Manager with the owner's password (JSON: username, password). The ARN is no secret."
  value       = module.instance.db_instance_master_user_secret_arn
}

output "security_group_id" {
  description = "Security group of the database."
  value       = aws_security_group.database.id
}

output "max_connections" {
  description = "Connections that PostgreSQL lets in."
  value       = var.max_connections
}

output "server_connections" {
  description = "Connections that all replicas together may hold: what is left for them."
  value       = var.max_connections - local.reserved_connections
}

output "instance_arn" {
  description = "ARN of the instance, for alarms and AWS Backup."
  value       = module.instance.db_instance_arn
}
