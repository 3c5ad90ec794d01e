# What is laid out, without an account: the provider is a mock.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::documents", id = "documents" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-central-1:123456789012:queue", id = "https://sqs/queue" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:secret" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:worker" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:worker" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/role" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/policy" }
  }
}

variables {
  region            = "eu-central-1"
  availability_zone = "eu-central-1b"
  name              = "documents"
  domain            = "documents.example.com"
  image             = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/document-api:1.4.0"
  function_zip      = "lambda/handler.py" # any file: its content is of no interest here
}

run "storage" {
  module {
    source = "./modules/storage"
  }

  variables {
    upload_origins = ["https://documents.example.com"]
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.files.block_public_acls,
      aws_s3_bucket_public_access_block.files.block_public_policy,
      aws_s3_bucket_public_access_block.files.ignore_public_acls,
      aws_s3_bucket_public_access_block.files.restrict_public_buckets,
    ])
    error_message = "The bucket can be made public."
  }

  assert {
    condition     = aws_s3_bucket_versioning.files.versioning_configuration[0].status == "Enabled"
    error_message = "A file that was removed by mistake is gone."
  }

  assert {
    condition     = aws_s3_bucket.files.force_destroy == false
    error_message = "A bucket with files in it can be destroyed."
  }

  assert {
    condition = (
      aws_s3_bucket_lifecycle_configuration.files.rule[0].expiration[0].expired_object_delete_marker
      && aws_s3_bucket_lifecycle_configuration.files.rule[0].abort_incomplete_multipart_upload[0].days_after_initiation == 7
    )
    error_message = "Delete markers and parts of unfinished uploads stay for ever."
  }

  assert {
    condition = alltrue([
      for each in jsondecode(aws_s3_bucket_policy.files.policy).Statement :
      each.Effect == "Deny" && each.Principal == "*" && each.Condition.Bool["aws:SecureTransport"] == "false"
      && each.Action == "s3:*" && toset(each.Resource) == toset([aws_s3_bucket.files.arn, "${aws_s3_bucket.files.arn}/*"])
    ])
    error_message = "The bucket answers without TLS."
  }

  assert {
    condition = (
      one(aws_s3_bucket_cors_configuration.files.cors_rule).allowed_origins == toset(["https://documents.example.com"])
      && one(aws_s3_bucket_cors_configuration.files.cors_rule).allowed_methods == toset(["PUT"])
      && one(aws_s3_bucket_cors_configuration.files.cors_rule).allowed_headers
      == toset(["content-type", "if-none-match", "x-amz-checksum-sha256"])
    )
    error_message = "A page cannot upload to the bucket, or can do more than that."
  }
}

run "remote" {
  module {
    source = "./modules/remote"
  }

  variables {
    account_id  = "123456789012"
    api_url     = "https://documents.example.com"
    zip         = "lambda/handler.py"
    timeout     = 120
    memory      = 1024
    concurrency = 7
  }

  assert {
    condition     = aws_sqs_queue.hints.visibility_timeout_seconds >= 6 * aws_lambda_function.worker.timeout
    error_message = "A message comes again while its function is at work."
  }

  assert {
    condition = (
      aws_sqs_queue.hints.message_retention_seconds > 5 * aws_sqs_queue.hints.visibility_timeout_seconds
      && aws_sqs_queue.hints.message_retention_seconds <= 6 * aws_sqs_queue.hints.visibility_timeout_seconds
    )
    error_message = "Hints that nobody takes pile up, or are gone before they are dead letters."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue.hints.redrive_policy).maxReceiveCount == 5
    error_message = "A message that cannot be used comes again without end, or is dropped too early."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue.hints.redrive_policy).deadLetterTargetArn == aws_sqs_queue.dead_letters.arn
    error_message = "Dead letters go nowhere."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.hints.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "What is to come again is deleted."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.hints.scaling_config[0].maximum_concurrency == 7
    error_message = "Functions have no bound."
  }

  assert {
    condition = (
      jsondecode(aws_iam_role.function.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"]
      == "123456789012"
    )
    error_message = "A function of another account can take the role."
  }

  assert {
    condition = alltrue([
      for each in jsondecode(aws_iam_role_policy.function.policy).Statement :
      !strcontains(jsonencode(each.Action), "*") && each.Resource != "*"
    ])
    error_message = "The function may do more than it has to."
  }

  assert {
    condition = alltrue([
      for each in values(aws_sqs_queue_policy.tls_only) :
      jsondecode(each.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    ])
    error_message = "A queue answers without TLS."
  }

  assert {
    condition     = toset(keys(aws_lambda_function.worker.environment[0].variables)) == toset(["API_KEY_SECRET_ID", "API_URL"])
    error_message = "The function's settings hold something else, a secret perhaps."
  }
}

run "all" {
  assert {
    condition = alltrue([
      for each in jsondecode(aws_iam_policy.service.policy).Statement :
      !strcontains(jsonencode(each.Action), "*") && each.Resource != "*"
    ])
    error_message = "The service may do more than it has to."
  }

  assert {
    condition     = jsondecode(output.remote_processors)["split-by-map"].queue == "sqs://documents-hints?region=eu-central-1"
    error_message = "The service does not know the queue."
  }

  assert {
    condition     = output.url == "https://documents.example.com"
    error_message = "Clients are led elsewhere."
  }

  assert {
    condition     = length(module.service) == 1
    error_message = "Nothing serves."
  }
}

run "service" {
  module {
    source = "./modules/service"
  }

  variables {
    account_id        = "123456789012"
    proxy_image       = "docker.io/library/caddy:2.10.2"
    zone_id           = ""
    instance_type     = "t4g.small"
    data_gib          = 20
    allowed_cidrs     = ["192.0.2.0/24"]
    policy_arn        = "arn:aws:iam::123456789012:policy/policy"
    remote_processors = "{}"
    environment       = { SECRETS_MANAGER_ID = "documents/settings" }
  }

  assert {
    condition = (
      aws_instance.service.metadata_options[0].http_tokens == "required"
      && aws_instance.service.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "Who can have the service fetch a URL can have the role's credentials."
  }

  assert {
    condition = (
      [for each in aws_vpc_security_group_ingress_rule.https : [each.cidr_ipv4, each.from_port, each.to_port]]
      == [["192.0.2.0/24", 443, 443]]
    )
    error_message = "There is a way in that nobody needs."
  }

  assert {
    condition = (
      jsondecode(aws_iam_role.snapshots.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"]
      == "123456789012"
    )
    error_message = "A policy of another account can take the role."
  }

  assert {
    condition = (
      aws_ebs_volume.data.encrypted && aws_ebs_volume.data.final_snapshot
      && aws_instance.service.root_block_device[0].encrypted
    )
    error_message = "The data can be read from a disk, or is gone with the volume."
  }

  assert {
    condition = alltrue([
      for each in jsondecode(aws_iam_role_policy.pull[0].policy).Statement :
      !strcontains(jsonencode(each.Action), "*") && (each.Resource != "*" || each.Action == "ecr:GetAuthorizationToken")
    ])
    error_message = "The machine may do more than it has to."
  }

  assert {
    condition = (
      jsondecode(aws_iam_role_policy.pull[0].policy).Statement[1].Resource
      == "arn:aws:ecr:eu-central-1:123456789012:repository/document-api"
    )
    error_message = "The image cannot be pulled."
  }

  assert {
    condition     = strcontains(aws_instance.service.user_data, "\nSECRETS_MANAGER_ID=documents/settings\n")
    error_message = "The service does not know where its secrets are."
  }
}

run "refusals" {
  command = plan

  variables {
    availability_zone    = "us-east-1a"
    domain               = "https://documents.example.com"
    image                = "registry.example.com/document-api:latest"
    proxy_image          = "docker.io/library/caddy:2"
    function_zip         = "build/none.zip"
    data_gib             = 7
    upload_origins       = ["*"]
    function_timeout     = 901 # Lambda allows 900
    function_memory      = 127
    function_concurrency = 1
  }

  expect_failures = [
    var.availability_zone,
    var.domain,
    var.image,
    var.proxy_image,
    var.function_zip,
    var.data_gib,
    var.upload_origins,
    var.function_timeout,
    var.function_memory,
    var.function_concurrency,
  ]
}

run "jobs_that_take_longer_than_the_function" {
  command = plan

  variables {
    function_timeout = 120
    job_timeout      = 121
  }

  expect_failures = [var.job_timeout]
}
