variable "name" {
  type = string
}

variable "upload_origins" {
  description = "Origins of pages that upload straight to the bucket."
  type        = list(string)
}
