"""The settings of webhooks: how they are told, and where they may be."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import NoDecode

from app.settings.fields import parsed
from app.settings.outbound import Networks, networks


class Webhooks(BaseModel):
    """Deliveries, and the addresses that they may go to."""

    webhook_concurrency: int = Field(
        32, ge=0, description="Deliveries made at once by one process, beside its jobs; 0: others make them."
    )
    webhook_endpoint_concurrency: int = Field(
        4, ge=1, description="Deliveries made at once to one webhook by one process; while it fails, one by all."
    )
    webhook_retry_schedule: str = Field(
        "0,5,300,1800,7200,18000,36000,50400,72000,86400",
        pattern=r"^\d{1,7}(\.\d{1,3})?(,\d{1,7}(\.\d{1,3})?){0,99}$",
        description="Seconds before each attempt to make a delivery, the first of which is made at once, with commas.",
    )
    webhook_disable_after: float = Field(
        5 * 86400, gt=0, description="A webhook that fails for this long, without one success, is disabled."
    )
    webhook_timeout: float = Field(
        15, ge=0.1, le=30, description="A webhook must be answered within this, from its name's look-up on; 0.1 to 30."
    )
    webhook_https_only: bool | None = Field(
        None, description="Webhooks go to `https://` URLs only. Empty: `true` in production, else `false`."
    )
    webhook_allow_nets: Annotated[Networks | None, NoDecode, parsed(networks)] = Field(
        None,
        description="Networks that are not public, with commas, to which webhooks may go nevertheless: `10.1.0.0/16`. "
        "Empty: loopback in development, none in production.",
    )
    webhook_proxy_url: SecretStr | None = Field(
        None,
        description="`http://host:port` of a proxy through which all webhooks go; it must check the addresses itself.",
    )
    webhook_user_agent: str = Field(
        "document-api", pattern=r"^[!-~]([ -~]{0,198}[!-~])?$", description="`User-Agent` of webhooks."
    )

    @property
    def webhook_delays(self) -> list[float]:
        """Seconds before each attempt to make a delivery."""
        return [float(seconds) for seconds in self.webhook_retry_schedule.split(",")]
