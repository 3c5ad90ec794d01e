output "url" {
  description = "Where the service is, once the domain leads to the address."
  value       = local.api_url
}

output "address" {
  description = "What the record of the domain must say; null if the service runs elsewhere."
  value       = one(module.service[*].address)
}

output "instance_id" {
  description = "For Session Manager; null if the service runs elsewhere."
  value       = one(module.service[*].instance_id)
}

output "bucket" {
  description = "The bucket of the files."
  value       = module.storage.bucket
}

output "settings_secret" {
  description = "SECRETS_MANAGER_ID."
  value       = aws_secretsmanager_secret.settings.arn
}

output "worker_key_secret" {
  description = "The secret that is the function's API key."
  value       = module.remote.key_secret
}

output "service_policy" {
  description = "What a service that runs elsewhere needs."
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
  description = "Where all of it is."
  value       = var.region
}
