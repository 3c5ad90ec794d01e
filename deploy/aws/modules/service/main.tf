locals {
  # A repository of ECR, if the image is in one.
  ecr     = try(regex("^([0-9]+)[.]dkr[.]ecr[.]([a-z0-9-]+)[.]amazonaws[.]com/([^:@]+)", var.image), null)
  ecr_arn = local.ecr == null ? null : "arn:aws:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"
}

data "aws_ssm_parameter" "ami" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
}

resource "aws_iam_role" "service" {
  name = "${var.name}-service"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "service" {
  role       = aws_iam_role.service.name
  policy_arn = var.policy_arn
}

# Session Manager, in place of SSH. AWS's own policy for it would allow to read all parameters of the account, too.
resource "aws_iam_role_policy" "session" {
  name = "session"
  role = aws_iam_role.service.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
      ]
      Resource = "*" # they have no other
    }]
  })
}

resource "aws_iam_role_policy" "pull" {
  count = local.ecr == null ? 0 : 1
  name  = "pull"
  role  = aws_iam_role.service.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # it has no other
      },
      {
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = local.ecr_arn
      },
    ]
  })
}

resource "aws_iam_instance_profile" "service" {
  name = "${var.name}-service"
  role = aws_iam_role.service.name
}

# The database and the certificate: the only thing here that cannot be made again.
resource "aws_ebs_volume" "data" {
  availability_zone = aws_subnet.service.availability_zone
  size              = var.data_gib
  type              = "gp3"
  encrypted         = true
  final_snapshot    = true # even if it is destroyed
  tags              = { Name = "${var.name}-data" }
}

resource "aws_volume_attachment" "data" {
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.data.id
  instance_id                    = aws_instance.service.id
  stop_instance_before_detaching = true
}

resource "aws_instance" "service" {
  ami                         = data.aws_ssm_parameter.ami.insecure_value
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.service.id
  vpc_security_group_ids      = [aws_security_group.service.id]
  iam_instance_profile        = aws_iam_instance_profile.service.name
  associate_public_ip_address = true # until the address that stays is there
  user_data_replace_on_change = true # another image or setting is another machine, with the same volume

  user_data = templatefile("${path.module}/user-data.sh.tftpl", {
    device            = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.data.id, "-", "")}"
    registry          = local.ecr == null ? "" : split("/", var.image)[0]
    registry_region   = local.ecr == null ? "" : local.ecr[1]
    image             = var.image
    proxy_image       = var.proxy_image
    domain            = var.domain
    environment       = var.environment
    remote_processors = var.remote_processors
  })

  # The containers share the machine's network: one hop is enough for them.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_size = 16
    volume_type = "gp3"
    encrypted   = true
  }

  tags = { Name = "${var.name}-service" }

  lifecycle {
    ignore_changes = [ami] # a newer one comes with the next replacement, not by surprise
  }
}

# A snapshot each night, for a week.
resource "aws_iam_role" "snapshots" {
  name = "${var.name}-snapshots"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "dlm.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "snapshots" {
  role       = aws_iam_role.snapshots.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSDataLifecycleManagerServiceRole"
}

resource "aws_dlm_lifecycle_policy" "snapshots" {
  description        = "The data of ${var.name}"
  execution_role_arn = aws_iam_role.snapshots.arn

  policy_details {
    resource_types = ["VOLUME"]
    target_tags    = aws_ebs_volume.data.tags

    schedule {
      name = "nightly"

      create_rule {
        interval      = 24
        interval_unit = "HOURS"
        times         = ["03:00"]
      }

      retain_rule {
        count = 7
      }
    }
  }
}
