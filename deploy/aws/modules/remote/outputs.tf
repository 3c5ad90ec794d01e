output "queue_name" {
  value = aws_sqs_queue.hints.name
}

output "queue_arn" {
  value = aws_sqs_queue.hints.arn
}

output "dead_letters_url" {
  value = aws_sqs_queue.dead_letters.url
}

output "key_secret" {
  value = aws_secretsmanager_secret.key.arn
}
