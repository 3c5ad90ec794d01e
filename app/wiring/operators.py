"""What operators do, built of the services that others have."""

from app.database import Database
from app.documents.service import DocumentService
from app.jobs.kinds import Kinds
from app.jobs.watch import JobWatch
from app.operators.bulk import BulkJobs
from app.operators.dependencies import Operators
from app.operators.documents import AllDocuments
from app.operators.jobs import AllJobs
from app.operators.processors import PausedProcessors
from app.operators.workload import Workload
from app.processing.acceptance import Acceptance
from app.processing.service import ProcessingService
from app.processing.stages.pipeline import AD_HOC
from app.quotas import Quotas
from app.settings import Settings
from app.wiring import adapters


def operators(
    db: Database,
    documents: DocumentService,
    processing: ProcessingService,
    acceptance: Acceptance,
    *,
    kinds: Kinds,
    watch: JobWatch,
    quotas: Quotas,
    settings: Settings,
) -> Operators:
    processors = adapters.offered(settings)
    return Operators(
        documents=AllDocuments(db, documents, processing, settings),
        jobs=AllJobs(db, processing),
        bulk=BulkJobs(db, kinds, acceptance, watch, quotas),
        processors=PausedProcessors(db, [*processors, *adapters.pipelines(settings, processors), AD_HOC]),
        workload=Workload(db),
    )
