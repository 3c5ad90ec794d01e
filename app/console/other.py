"""What is no page."""

from fastapi import Response

from app.console.frame.route import public_pages
from app.errors import NotFound

router = public_pages()


@router.get("/{path:path}")
async def nothing() -> Response:
    """Raises NotFound, whatever the path."""
    raise NotFound
