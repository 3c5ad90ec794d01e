variable "name" {
  type = string
}

variable "account_id" {
  type = string
}

variable "availability_zone" {
  type = string
}

variable "domain" {
  type = string
}

variable "zone_id" {
  type = string
}

variable "image" {
  type = string
}

variable "proxy_image" {
  type = string
}

variable "instance_type" {
  type = string
}

variable "data_gib" {
  type = number
}

variable "allowed_cidrs" {
  type = list(string)
}

variable "policy_arn" {
  description = "What the service may do."
  type        = string
}

variable "environment" {
  description = "Settings that are no secrets."
  type        = map(string)
}

variable "remote_processors" {
  description = "The file that REMOTE_PROCESSORS names."
  type        = string
}
