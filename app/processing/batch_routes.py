"""POST /documents/process-batch."""

from typing import Annotated

from fastapi import BackgroundTasks, Response
from starlette.exceptions import HTTPException

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.idempotency import IdempotencyKey
from app.processing.batch import Batches
from app.processing.schemas import BatchRequest, BatchResponse
from app.web.body import json_response
from app.web.dependencies import service
from app.web.describe import raises

router = authenticated_router(Scope.DOCUMENTS_PROCESS, prefix="/documents", tags=["processing"])

Service = Annotated[Batches, service("batches")]


@router.post(
    "/process-batch",
    operation_id="processBatch",
    response_model=BatchResponse,
    responses={
        200: {"description": "Nothing was started.", "model": BatchResponse, "headers": idempotency.HEADERS},
        202: {
            "description": "Accepted: a job was created for each document that was not processed yet.",
            "model": BatchResponse,
            "headers": idempotency.HEADERS,
        },
        **raises(
            errors.UnknownProcessor, errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy, body=True, keyed=True
        ),
    },
)
async def process_batch(
    *,
    principal: CurrentPrincipal,
    batches: Service,
    key: IdempotencyKey,
    background: BackgroundTasks,
    body: BatchRequest,
) -> Response:
    """Process up to 1,000 documents, each as POST /documents/{id}/process would: the answer names every one of them.

    Safe to repeat, also after an answer that got lost or a failure midway.
    """
    answer = await batches.process(principal, body, key)
    for job_id in answer.started:
        background.add_task(batches.wake, job_id)
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
    return json_response(answer.response, 202 if answer.response.started else 200, headers)


@router.api_route("/process-batch", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def refuse_other_methods() -> None:
    """Answer 405: without this route, `process-batch` would be taken for a document's id."""
    raise HTTPException(405)
