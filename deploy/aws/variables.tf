variable "region" {
  description = "The region in which all of it is laid out."
  type        = string
}

variable "availability_zone" {
  description = "The zone of the machine and its volume, such as eu-central-1a. Another zone is another, empty, volume."
  type        = string
  default     = ""

  validation {
    condition     = !var.service || can(regex("^${var.region}[a-z]$", var.availability_zone))
    error_message = "The machine needs a zone of the region: its name and a letter."
  }
}

variable "name" {
  description = "All names begin with it. That of the bucket does, too, and is then unique in all of AWS."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,29}$", var.name))
    error_message = "A name has 3 to 30 of a-z, 0-9 and -, and begins with a letter."
  }
}

variable "domain" {
  description = "The host name that clients use, such as documents.example.com. Its certificate is made for it by itself."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+([.][a-z0-9-]+)+$", var.domain))
    error_message = "The domain is a host name in lower case, without https:// and without a port."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that gets the record of the domain. If it is empty, you make the record."
  type        = string
  default     = ""
}

variable "service" {
  description = "Whether the machine that serves is laid out. If not, the service runs elsewhere, with the policy in the outputs."
  type        = bool
  default     = true
}

variable "image" {
  description = "The service's image for arm64, by its digest or a tag that never moves."
  type        = string
  default     = ""

  validation {
    condition     = !var.service || can(regex("(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_.-]+)$", var.image))
    error_message = "The service needs an image with a tag or a digest."
  }

  validation {
    condition     = !endswith(var.image, ":latest")
    error_message = "The tag latest moves: nobody could tell what runs, nor roll it back."
  }
}

variable "proxy_image" {
  description = "The image of Caddy that ends TLS, by its digest or a full version, whose tag never moves."
  type        = string
  default     = "docker.io/library/caddy:2.10.2"

  validation {
    condition     = can(regex("(@sha256:[0-9a-f]{64}|:[0-9]+[.][0-9]+[.][0-9]+(-[a-z]+)?)$", var.proxy_image))
    error_message = "The proxy needs an image with a digest or a full version, such as 2.10.2."
  }
}

variable "processors" {
  description = "PROCESSORS of the service, the default one first. split-by-map is offered beside them."
  type        = string
  default     = "text,split,merge,keywords,language"
}

variable "instance_type" {
  description = "The type of the machine, one of those with arm64."
  type        = string
  default     = "t4g.small"
}

variable "data_gib" {
  description = "GiB of the volume with the database. It can grow later."
  type        = number
  default     = 20

  validation {
    condition     = var.data_gib >= 8
    error_message = "The volume has at least 8 GiB."
  }
}

variable "allowed_cidrs" {
  description = "Networks that may connect. The function connects from addresses of AWS, which change."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "upload_origins" {
  description = "Origins of pages that upload straight to the bucket, beside that of the domain."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.upload_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "An origin is such as https://app.example.com, without a path. * is none."
  }
}

variable "function_zip" {
  description = "The function's code, which scripts/package makes."
  type        = string
  default     = "build/function.zip"

  validation {
    condition     = fileexists(var.function_zip)
    error_message = "There is no ${var.function_zip} yet: run scripts/package, which scripts/deploy does by itself."
  }
}

variable "function_timeout" {
  description = "Seconds that the function may take. The last 10 of them are for giving the job back."
  type        = number
  default     = 120

  validation {
    condition     = var.function_timeout >= 30 && var.function_timeout <= 900
    error_message = "The function may take 30 to 900 seconds, which is the most that Lambda allows."
  }
}

variable "job_timeout" {
  description = <<-END
    JOB_TIMEOUT of the service: seconds that an attempt may take, of any processor. There is none for one processor only,
    so that none can take longer than the function may.
  END
  type        = number
  default     = 120

  validation {
    condition     = var.job_timeout <= var.function_timeout
    error_message = "It is function_timeout at the most, or the function is killed while it may still hold its job."
  }
}

variable "function_memory" {
  description = "MiB of memory of the function. A PDF needs several times its size."
  type        = number
  default     = 1024

  validation {
    condition     = var.function_memory >= 128 && var.function_memory <= 10240
    error_message = "The function has 128 to 10240 MiB."
  }
}

variable "function_concurrency" {
  description = "The most functions that work at once. None is reserved, so that a new account, which may have but 10, can."
  type        = number
  default     = 10

  validation {
    condition     = var.function_concurrency >= 2 && var.function_concurrency <= 1000
    error_message = "The mapping of a queue allows 2 to 1000 functions at once."
  }
}

variable "path_style" {
  description = "Whether S3 is asked by paths, as servers other than AWS's need it."
  type        = bool
  default     = false
}
