terraform {
  required_version = ">= 1.9" # validations that compare variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7"
    }
  }
}

# Credentials are those of the AWS tools; AWS_ENDPOINT_URL leads elsewhere.
provider "aws" {
  region            = var.region
  s3_use_path_style = var.path_style

  default_tags {
    tags = { Service = var.name }
  }
}
