"""What events, jobs and documents say of a failure."""

from pydantic import BaseModel, Field


class Failure(BaseModel):
    """Why a job failed, or an upload was rejected."""

    code: str = Field(examples=["password-protected"])
    detail: str = Field(examples=["The file is protected with a password."])
