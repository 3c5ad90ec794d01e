output "url" {
  description = "The address of the service, once the domain leads to the machine."
  value       = local.api_url
}

output "address" {
  description = "The IP address that the record of the domain must have; null if the service runs elsewhere."
  value       = one(module.service[*].address)
}

output "instance_id" {
  description = "The machine, for Session Manager; null if the service runs elsewhere."
  value       = one(module.service[*].instance_id)
}

output "bucket" {
  description = "The bucket of the files."
  value       = module.storage.bucket
}

output "settings_secret" {
  description = "The secret of the service's settings: SECRETS_MANAGER_ID."
  value       = aws_secretsmanager_secret.settings.arn
}

output "worker_key_secret" {
  description = "The secret that is the function's API key."
  value       = module.remote.key_secret
}

output "service_policy" {
  description = "The policy that a service that runs elsewhere needs."
  value       = aws_iam_policy.service.arn
}

output "remote_processors" {
  description = "REMOTE_PROCESSORS of a service that runs elsewhere: the text of that file."
  value       = jsonencode(local.remote_processors)
}

output "dead_letters" {
  description = "URL of the queue of messages that came to nothing."
  value       = module.remote.dead_letters_url
}

output "region" {
  description = "The region in which all of it is."
  value       = var.region
}
