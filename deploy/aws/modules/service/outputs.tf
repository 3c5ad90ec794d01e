output "address" {
  value = aws_eip.service.public_ip
}

output "instance_id" {
  value = aws_instance.service.id
}
