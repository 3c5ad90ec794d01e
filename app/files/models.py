"""Files as the code sees them."""

from typing import Literal

ContentType = Literal["application/pdf", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"]
