resource "aws_vpc" "service" {
  cidr_block           = "10.20.0.0/16"
  enable_dns_hostnames = true
}

resource "aws_internet_gateway" "service" {
  vpc_id = aws_vpc.service.id
}

resource "aws_subnet" "service" {
  vpc_id            = aws_vpc.service.id
  cidr_block        = "10.20.1.0/24"
  availability_zone = var.availability_zone
}

resource "aws_route_table" "service" {
  vpc_id = aws_vpc.service.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.service.id
  }
}

resource "aws_route_table_association" "service" {
  subnet_id      = aws_subnet.service.id
  route_table_id = aws_route_table.service.id
}

# No SSH: Session Manager needs no port. Port 80 answers the challenge for the certificate, and leads to https.
resource "aws_security_group" "service" {
  name        = "${var.name}-service"
  description = "HTTPS in, anything out: webhooks go where users say."
  vpc_id      = aws_vpc.service.id
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each          = toset(var.allowed_cidrs)
  security_group_id = aws_security_group.service.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  security_group_id = aws_security_group.service.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.service.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

# The address stays when the machine is replaced.
resource "aws_eip" "service" {
  domain = "vpc"
}

resource "aws_eip_association" "service" {
  allocation_id = aws_eip.service.allocation_id
  instance_id   = aws_instance.service.id
}

resource "aws_route53_record" "service" {
  count   = var.zone_id == "" ? 0 : 1
  zone_id = var.zone_id
  name    = var.domain
  type    = "A"
  ttl     = 300
  records = [aws_eip.service.public_ip]
}
