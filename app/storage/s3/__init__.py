"""Files in an S3 bucket: AWS, MinIO, SeaweedFS. The bucket is not to be shared with another deployment's prefix."""

from app.storage.s3.storage import S3Storage

__all__ = ["S3Storage"]
