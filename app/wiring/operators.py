"""What operators do, built of the services that others have."""

from app.database import Database
from app.documents.service import DocumentService
from app.operators.dependencies import Operators
from app.operators.documents import AllDocuments
from app.operators.jobs import AllJobs
from app.operators.processors import PausedProcessors
from app.operators.workload import Workload
from app.processing.service import ProcessingService
from app.processing.stages.pipeline import AD_HOC
from app.settings import Settings
from app.wiring import adapters


def operators(db: Database, documents: DocumentService, processing: ProcessingService, settings: Settings) -> Operators:
    processors = adapters.offered(settings)
    return Operators(
        documents=AllDocuments(db, documents, processing, settings),
        jobs=AllJobs(db, processing),
        processors=PausedProcessors(db, [*processors, *adapters.pipelines(settings, processors), AD_HOC]),
        workload=Workload(db),
    )
