"""What STORAGE_URL may say, and what it may not."""

from pathlib import Path

import certifi
import pytest

from app.errors import ConfigurationError
from app.settings import load
from app.settings.storage import Bucket

MINIO = "http://minio:9000"

VALID = {
    "file:///srv/my%20files": Path("/srv/my files"),
    "s3://my-bucket": Bucket(name="my-bucket"),
    "s3://my-bucket/": Bucket(name="my-bucket"),
    "s3://my.bucket/a/b_c": Bucket(name="my.bucket", prefix="a/b_c/"),
    "s3://my-bucket/a/": Bucket(name="my-bucket", prefix="a/"),
    f"s3://my-bucket?endpoint={MINIO}": Bucket(name="my-bucket", endpoint=MINIO),
    f"s3://my-bucket?endpoint={MINIO}/": Bucket(name="my-bucket", endpoint=MINIO),
    "s3://my-bucket?endpoint=http%3A%2F%2Fminio%3A9000": Bucket(name="my-bucket", endpoint=MINIO),
    f"s3://my-bucket?endpoint={MINIO}&addressing=virtual": Bucket(
        name="my-bucket", endpoint=MINIO, addressing="virtual"
    ),
    "s3://my-bucket?region=eu-central-1&verify=false": Bucket(name="my-bucket", region="eu-central-1", verify="false"),
    f"s3://my-bucket?endpoint={MINIO}&public_endpoint=https://files.example.com": Bucket(
        name="my-bucket", endpoint=MINIO, public_endpoint="https://files.example.com"
    ),
    f"s3://my-bucket?verify={certifi.where()}": Bucket(name="my-bucket", verify=certifi.where()),
    "s3://my-bucket?endpoint=https://[::1]:9000": Bucket(name="my-bucket", endpoint="https://[::1]:9000"),
}

INVALID = [
    *("file://", "file:///", "file:///a?b", "ftp://a/b", "/srv/files", "s3:/bucket", "S3://bucket"),
    *("s3://", "s3:///a", "s3://ab", "s3://Bucket", "s3://buc_ket", "s3://-bucket", "s3://bucket-", "s3://a..b"),
    *("s3://127.0.0.1", "s3://bucket:80", f"s3://{'b' * 64}", "s3://user:secret@bucket", "s3://[bucket"),
    *(
        "s3://bucket//a",
        "s3://bucket/a//b",
        "s3://bucket/a//",
        "s3://bucket/..",
        "s3://bucket/a/../b",
        "s3://bucket/./a",
    ),
    *(
        "s3://bucket/a%2Fb",
        "s3://bucket/a b",
        "s3://bucket/a\nb",
        "s3://bucket/a\\b",
        "s3://bucket/ü",
        "s3://bucket/\x7f",
    ),
    *(
        "s3://bucket/a#b",
        f"s3://bucket/{'a' * 513}",
        "s3://bucket?secret=a",
        "s3://bucket?a%0Ab=c",
        "s3://bucket?name=c",
        "s3://bucket?prefix=c",
        "s3://bucket?Endpoint=http://a",
    ),
    *("s3://bucket?region=", "s3://bucket?region=EU", "s3://bucket?region=a&region=b", "s3://bucket?addressing=both"),
    *("s3://bucket?public_endpoint=", "s3://bucket?public_endpoint=http://a/b"),
    f"s3://bucket?verify={__file__}",
    *("s3://bucket?region=-", "s3://bucket?region=us-east-1-", "s3://bucket?region=1", "s3://bucket?verify=/dev/null"),
    *("s3://bucket?verify=", "s3://bucket?verify=no", "s3://bucket?verify=/no/such.pem", "s3://bucket?verify=/"),
    *(
        f"s3://bucket?endpoint={endpoint}"
        for endpoint in ("", "minio", "minio:9000", "ftp://a", "http://", "http://a/b")
    ),
    *(f"s3://bucket?endpoint=http://{host}" for host in ("minio_1:9000", "-a", "a-", "a..b", "a%2520b", "a" * 64)),
    *(
        f"s3://bucket?endpoint={endpoint}"
        for endpoint in ("http://a:b", "http://a:0", "http://a:65536", "http://k:s@a", "http://a%3Fb")
    ),
]


@pytest.mark.parametrize(("url", "place"), VALID.items(), ids=VALID)
def test_valid(url, place):
    assert load(storage_url=url).storage == place


@pytest.mark.parametrize("url", INVALID)
def test_invalid(url):
    with pytest.raises(ConfigurationError, match=r"^STORAGE_URL: .+$") as refusal:
        load(storage_url=url)
    assert "secret@" not in str(refusal.value)
