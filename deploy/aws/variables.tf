variable "region" {
  description = "Where all of it is."
  type        = string
}

variable "name" {
  description = "What all names begin with; the bucket's, which all of AWS shares, too."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,29}$", var.name))
    error_message = "3 to 30 of a-z, 0-9 and -, a letter first."
  }
}

variable "domain" {
  description = "The host name that clients use, such as documents.example.com. Its certificate is made for it by itself."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+([.][a-z0-9-]+)+$", var.domain))
    error_message = "A host name in lower case, without https:// and without a port."
  }
}

variable "zone_id" {
  description = "Route 53 zone that gets the record of the domain; empty: you make it."
  type        = string
  default     = ""
}

variable "service" {
  description = "Lay out the machine that serves, too. false: it runs elsewhere, with the policy in the outputs."
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
    error_message = "Not latest: what runs could not be told, nor rolled back."
  }
}

variable "processors" {
  description = "PROCESSORS of the service, the default one first. split-by-map is there, too."
  type        = string
  default     = "text,split,merge,keywords,language"
}

variable "instance_type" {
  description = "Of arm64."
  type        = string
  default     = "t4g.small"
}

variable "data_gib" {
  description = "Size of the volume with the database, which can grow later."
  type        = number
  default     = 20

  validation {
    condition     = var.data_gib >= 8
    error_message = "At least 8."
  }
}

variable "allowed_cidrs" {
  description = "Who may connect. The function does, too, from addresses of AWS."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "upload_origins" {
  description = "Origins of pages that upload straight to the bucket; that of the domain is one."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.upload_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "Origins such as https://app.example.com, without a path, and no *."
  }
}

variable "function_zip" {
  description = "The function's code, which scripts/package makes."
  type        = string
  default     = "build/function.zip"
}

variable "function_timeout" {
  description = "Seconds that the function may take; 10 of them are for giving the job back."
  type        = number
  default     = 120

  validation {
    condition     = var.function_timeout >= 30 && var.function_timeout <= 900
    error_message = "30 to 900, which is the most that Lambda allows."
  }
}

variable "job_timeout" {
  description = "JOB_TIMEOUT of the service: seconds that an attempt may take."
  type        = number
  default     = 120

  validation {
    condition     = var.job_timeout <= var.function_timeout
    error_message = "At most function_timeout: the function would be killed under a job that may still be held."
  }
}

variable "function_memory" {
  description = "MiB. A PDF needs several times its size."
  type        = number
  default     = 1024

  validation {
    condition     = var.function_memory >= 128 && var.function_memory <= 10240
    error_message = "128 to 10240."
  }
}

variable "function_concurrency" {
  description = "Functions at work at once, at the most. They are reserved: 100 must be left to the account's others."
  type        = number
  default     = 10

  validation {
    condition     = var.function_concurrency >= 2 && var.function_concurrency <= 1000
    error_message = "2 to 1000, as the queue's mapping has it."
  }
}

variable "path_style" {
  description = "Ask S3 by paths, as servers other than AWS's need it."
  type        = bool
  default     = false
}
