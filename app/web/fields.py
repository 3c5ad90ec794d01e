"""Rules for text that comes from outside, as patterns that validation and API description share.

NUL passes SQLite and fails PostgreSQL; other control characters forge log lines.
"""

LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
PROSE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"  # with tabs and line ends
