output "role_arn" {
  description = "ARN of the role."
  value       = local.role_arn
}

output "policy" {
  description = "What the role may do, as JSON."
  value       = local.policy
}

output "namespace" {
  description = "Namespace that the chart must be installed into."
  value       = var.namespace
}

output "service_account" {
  description = "Name that the chart's service account must have (`serviceAccount.name`)."
  value       = var.service_account
}

output "service_account_annotations" {
  description = "Annotations that the service account needs: the role for IRSA, none for pod identity."
  value       = local.pod_identity ? {} : { "eks.amazonaws.com/role-arn" = local.role_arn }
}
