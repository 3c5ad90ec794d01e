variable "name" {
  type = string
}

variable "account_id" {
  type = string
}

variable "api_url" {
  description = "Where the function reaches the service."
  type        = string
}

variable "zip" {
  description = "The function's code."
  type        = string
}

variable "timeout" {
  description = "Seconds."
  type        = number
}

variable "memory" {
  description = "MiB."
  type        = number
}

variable "concurrency" {
  description = "Functions at once."
  type        = number
}
