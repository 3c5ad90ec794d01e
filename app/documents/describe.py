"""What the OpenAPI says of a document in the answers of several routes."""

from typing import Any

from app.web.describe import header, links

LOCATION = {"Location": header("The document.", "/documents/01939f3e-5c00-7000-8000-000000000001")}
LINKS: dict[str, Any] = links(
    "getDocument",
    "editDocument",
    "getDocumentContent",
    "getDocumentTimeline",
    "processDocument",
    "deleteDocument",
    document_id="$response.body#/id",
)
