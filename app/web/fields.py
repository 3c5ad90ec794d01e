"""Patterns for text from clients, used for validation and in the API description.

PostgreSQL refuses NUL, which SQLite accepts; other control characters could forge log lines.
"""

LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
PROSE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"  # tabs and line breaks are allowed
