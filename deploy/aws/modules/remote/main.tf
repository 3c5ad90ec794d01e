locals {
  visibility = 6 * var.timeout # what AWS advises: the mapping may be throttled meanwhile
  receives   = 5
}

resource "aws_sqs_queue" "hints" {
  name                       = "${var.name}-hints"
  sqs_managed_sse_enabled    = true
  visibility_timeout_seconds = local.visibility

  # Hints of a job that is due are repeated, so that old ones are of no use: long enough to end among the dead letters.
  message_retention_seconds = (local.receives + 1) * local.visibility

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = local.receives
  })
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-hints-dead"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 14 * 24 * 3600
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.hints.arn]
  })
}

resource "aws_sqs_queue_policy" "tls_only" {
  for_each  = { hints = aws_sqs_queue.hints, dead_letters = aws_sqs_queue.dead_letters }
  queue_url = each.value.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

# Without a version: its value, the API key, is never in Terraform's state.
resource "aws_secretsmanager_secret" "key" {
  name        = "${var.name}/worker-key"
  description = "API key with the scope worker, of the function."
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}-worker"
  retention_in_days = 30
}

resource "aws_iam_role" "function" {
  name = "${var.name}-worker"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "function" {
  name = "worker"
  role = aws_iam_role.function.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
        Resource = aws_sqs_queue.hints.arn
      },
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = aws_secretsmanager_secret.key.arn
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.function.arn}:*"
      },
    ]
  })
}

resource "aws_lambda_function" "worker" {
  function_name    = "${var.name}-worker"
  description      = "Claims and does the jobs of the processor split-by-map."
  role             = aws_iam_role.function.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "handler.handler"
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  timeout          = var.timeout
  memory_size      = var.memory

  environment {
    variables = {
      API_URL           = var.api_url
      API_KEY_SECRET_ID = aws_secretsmanager_secret.key.arn
    }
  }

  depends_on = [aws_cloudwatch_log_group.function, aws_iam_role_policy.function]
}

resource "aws_lambda_event_source_mapping" "hints" {
  event_source_arn        = aws_sqs_queue.hints.arn
  function_name           = aws_lambda_function.worker.arn
  batch_size              = 1 # each job has the whole time
  function_response_types = ["ReportBatchItemFailures"]

  scaling_config {
    maximum_concurrency = var.concurrency
  }
}
