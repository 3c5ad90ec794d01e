output "bucket" {
  value = aws_s3_bucket.files.id
}

output "bucket_arn" {
  value = aws_s3_bucket.files.arn
}
