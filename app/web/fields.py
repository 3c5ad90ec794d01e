"""What text and names from clients are like, for validation and in the API description.

PostgreSQL refuses NUL, which SQLite accepts; other control characters could forge log lines.
"""

import unicodedata
from enum import StrEnum
from typing import Any

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema

LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
PROSE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"  # tabs and line breaks are allowed


def _composed(value: object) -> object:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


COMPOSED = BeforeValidator(_composed)
"""For text that is compared: some clients send an é as one character, some as two (Unicode Standard Annex 15)."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For strict integers: 3.0 is accepted for 3, which is an integer in JSON Schema (Validation, section 6.1.1)."""


class NamedValues(StrEnum):
    """An enum whose values are no names: generated clients call the values what we do, not `VALUE_1`."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler(schema)
        handler.resolve_ref_schema(described)["x-enum-varnames"] = list(cls.__members__)
        return described
