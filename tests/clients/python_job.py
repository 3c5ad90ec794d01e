"""The main job, done with the client that openapi-python-client has made: python_job.py URL FILE."""

import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from document_api import AuthenticatedClient, Client, models
from document_api.api.auth import login, me, register, token
from document_api.api.direct_uploads import complete_upload, initiate_upload, put_upload
from document_api.api.documents import (
    delete_document,
    edit_document,
    get_document,
    get_document_content,
    get_document_timeline,
    list_documents,
    upload_document,
)
from document_api.api.processing import get_job, get_result, list_jobs, list_processors, process_document
from document_api.types import File

PASSWORD = "correct horse battery staple"


def logged_in(url: str) -> AuthenticatedClient:
    anonymous, email = Client(base_url=url), f"{uuid4().hex}@example.com"
    credentials = models.Credentials(email, PASSWORD)
    registered = register.sync(client=anonymous, body=models.NewUser(email, PASSWORD))
    assert isinstance(registered, models.User), registered
    again = register.sync(client=anonymous, body=models.NewUser(email, PASSWORD))
    assert isinstance(again, models.Problem)
    assert again.code == "email-taken"
    assert isinstance(token.sync(client=anonymous, body=models.TokenForm(email, PASSWORD)), models.TokenPair)
    pair = login.sync(client=anonymous, body=credentials)
    assert isinstance(pair, models.TokenPair), pair
    client = AuthenticatedClient(base_url=url, token=pair.access_token)
    account = me.sync(client=client)
    assert isinstance(account, models.Account)
    assert (account.email, account.usage.documents) == (email, 0)
    return client


def uploaded(client: AuthenticatedClient, content: bytes) -> models.UploadedDocument:
    metadata = models.UploadMetadata(folder="Verträge/2026", tags=["grün"])
    file = File(BytesIO(content), "Übersicht.pdf", "application/pdf")
    document = upload_document.sync(
        client=client, body=models.UploadForm(file=file, metadata=metadata), idempotency_key=uuid4().hex
    )
    assert isinstance(document, models.UploadedDocument), document
    assert (document.filename, document.folder, document.tags) == ("Übersicht.pdf", "Verträge/2026", ["grün"])
    assert document.content_type is models.ContentType.PDF
    return document


def processed(client: AuthenticatedClient, document_id: UUID) -> None:
    quick = models.ProcessRequest(params=models.SimulatedParams(seconds=0))
    text = models.ProcessRequest(processor=models.ProcessorName.TEXT, params=models.TextParams(max_pages=3))
    for wanted in (text, quick):
        accepted = process_document.sync(document_id, client=client, body=wanted)
        assert isinstance(accepted, models.ProcessResponse), accepted
        job = get_job.sync(accepted.job.id, client=client, wait=30)
        assert isinstance(job, models.Job), job
        assert job.state is models.JobState.SUCCEEDED, job
        result = get_result.sync(document_id, client=client)
        assert isinstance(result, models.Result), result
        if wanted is text:
            assert isinstance(result.data, models.TextResult)
            assert (result.data.text, result.data.page_count) == ("Hello 1", 1)
        else:
            assert isinstance(result.data, models.SimulatedResult)
    # The body may be left out.
    defaults = process_document.sync(document_id, client=client)
    assert isinstance(defaults, models.ProcessResponse), defaults
    get_job.sync(defaults.job.id, client=client, wait=30)
    jobs = list_jobs.sync(client=client, state=models.JobState.SUCCEEDED, document_id=document_id)
    assert isinstance(jobs, models.JobPage)
    assert {job.processor for job in jobs.items} == {"simulated", "text"}
    timeline = get_document_timeline.sync(document_id, client=client)
    assert isinstance(timeline, models.TimelinePage)
    assert timeline.items[0].event is models.EventName.DOCUMENT_UPLOADED
    moves = [each.data for each in timeline.items if each.event is models.EventName.DOCUMENT_STATUS_CHANGED]
    assert isinstance(moves[0], models.DocumentStatusChanged)
    assert (moves[0].old, moves[0].new) == ("UPLOADED", "PROCESSING")


def read(client: AuthenticatedClient, document_id: UUID, content: bytes) -> None:
    whole = get_document_content.sync(document_id, client=client)
    assert isinstance(whole, File), whole
    assert whole.payload.read() == content
    part = get_document_content.sync_detailed(document_id, client=client, range_="bytes=5-9")
    assert (part.status_code, part.content) == (206, content[5:10])
    found = list_documents.sync(
        client=client,
        status=models.Status.COMPLETED,
        content_type=models.ContentType.PDF,
        tag="grün",
        q="übersicht",
        sort=models.Sort.FILENAME_DESCENDING,
        limit=1,
    )
    assert isinstance(found, models.DocumentPage)
    assert [each.id for each in found.items] == [document_id]
    offered = list_processors.sync(client=client)
    assert isinstance(offered, models.ProcessorList)
    assert [each.name for each in offered.items][:2] == ["simulated", "text"]


def edited(client: AuthenticatedClient, document_id: UUID) -> None:
    seen = get_document.sync_detailed(document_id, client=client).headers["etag"]
    changed = edit_document.sync(
        document_id, client=client, body=models.MetadataChanges(description="Fünf Seiten"), if_match=seen
    )
    assert isinstance(changed, models.Document), changed
    assert (changed.description, changed.folder, changed.tags) == ("Fünf Seiten", "Verträge/2026", ["grün"])
    refused = edit_document.sync(document_id, client=client, body=models.MetadataChanges(folder=None), if_match=seen)
    assert isinstance(refused, models.Problem)
    assert refused.code == "precondition-failed"


def sent_directly(client: AuthenticatedClient, content: bytes) -> UUID:
    announced = models.NewUpload("direct.pdf", models.ContentType.PDF, len(content))
    upload = initiate_upload.sync(client=client, body=announced)
    assert isinstance(upload, models.Upload), upload
    query = parse_qs(urlsplit(upload.upload_url).query)
    put = put_upload.sync_detailed(
        upload.document_id,
        client=client,
        body=File(BytesIO(content)),
        expires=int(query["expires"][0]),
        signature=query["signature"][0],
    )
    assert put.status_code == 200, put.content
    document = complete_upload.sync(upload.document_id, client=client)
    assert isinstance(document, models.Document), document
    assert document.status is models.Status.UPLOADED
    return document.id


def main(url: str, file: str) -> None:
    content = Path(file).read_bytes()
    client = logged_in(url)
    document_id = uploaded(client, content).id
    processed(client, document_id)
    read(client, document_id, content)
    edited(client, document_id)
    for each in (document_id, sent_directly(client, content)):
        assert delete_document.sync_detailed(each, client=client).status_code == 204
    gone = get_document.sync(document_id, client=client)
    assert isinstance(gone, models.Problem)
    assert gone.status == 404


if __name__ == "__main__":
    main(*sys.argv[1:])
