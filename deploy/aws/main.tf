locals {
  api_url = "https://${var.domain}"
  queue   = "sqs://${module.remote.queue_name}?region=${var.region}"

  # REMOTE_PROCESSORS of the service.
  remote_processors = {
    split-by-map = merge(jsondecode(file("${path.module}/lambda/processor.json")), { queue = local.queue })
  }
}

data "aws_caller_identity" "here" {}

module "storage" {
  source         = "./modules/storage"
  name           = var.name
  upload_origins = concat([local.api_url], var.upload_origins)
}

module "remote" {
  source      = "./modules/remote"
  name        = var.name
  account_id  = data.aws_caller_identity.here.account_id
  api_url     = local.api_url
  zip         = var.function_zip
  timeout     = var.function_timeout
  memory      = var.function_memory
  concurrency = var.function_concurrency
}

# Without a version: its value is put by scripts/deploy, and is never in Terraform's state.
resource "aws_secretsmanager_secret" "settings" {
  name        = "${var.name}/settings"
  description = "Settings of the service: SECRETS_MANAGER_ID."
}

resource "aws_iam_policy" "service" {
  name        = "${var.name}-service"
  description = "What the service may do."

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
        Resource = module.storage.bucket_arn
      },
      {
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        Resource = "${module.storage.bucket_arn}/documents/*"
      },
      {
        Effect   = "Allow"
        Action   = ["sqs:GetQueueUrl", "sqs:SendMessage"]
        Resource = module.remote.queue_arn
      },
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = aws_secretsmanager_secret.settings.arn
      },
    ]
  })
}

module "service" {
  source            = "./modules/service"
  count             = var.service ? 1 : 0
  name              = var.name
  account_id        = data.aws_caller_identity.here.account_id
  availability_zone = var.availability_zone
  domain            = var.domain
  zone_id           = var.zone_id
  image             = var.image
  proxy_image       = var.proxy_image
  instance_type     = var.instance_type
  data_gib          = var.data_gib
  allowed_cidrs     = var.allowed_cidrs
  policy_arn        = aws_iam_policy.service.arn
  remote_processors = jsonencode(local.remote_processors)

  # What is no secret; DATABASE_URL may be in the secret, and is SQLite's file on the volume otherwise.
  environment = {
    AWS_DEFAULT_REGION = var.region
    SECRETS_MANAGER_ID = aws_secretsmanager_secret.settings.arn
    PUBLIC_URL         = local.api_url
    STORAGE_URL        = "s3://${module.storage.bucket}?region=${var.region}"
    PROCESSORS         = var.processors
    REMOTE_PROCESSORS  = "/etc/document-api/remote.json"
    JOB_TIMEOUT        = var.job_timeout
  }
}
