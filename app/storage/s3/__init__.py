"""Files in an S3 bucket: AWS, MinIO, SeaweedFS. No two deployments may share a prefix."""

from app.storage.s3.storage import S3Storage

__all__ = ["S3Storage"]
