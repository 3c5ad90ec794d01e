"""What serves workers elsewhere, built of what runs processors here."""

from collections.abc import Mapping, Sequence

from app.database import Database
from app.files.downloads import Downloads
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.stored import StoredFiles
from app.jobs.turns import Turns
from app.jobs.watch import JobWatch
from app.processing.kind import ProcessKind
from app.processors.base import Processor
from app.remote.claiming import Claiming
from app.remote.inputs import InputUrls
from app.remote.processors import RemoteProcessor
from app.remote.queues import RemoteQueues
from app.remote.service import RemoteJobs
from app.remote.tokens import ClaimTokens
from app.settings import Settings
from app.wiring.processing import Making


def remote_queues(processors: Mapping[str, Processor], turns: Turns) -> RemoteQueues:
    """The queues of those that are run elsewhere."""
    return RemoteQueues([each for each in processors.values() if isinstance(each, RemoteProcessor)], turns)


def remote_jobs(
    db: Database,
    kind: ProcessKind,
    queues: RemoteQueues,
    making: Making,
    *,
    stored: StoredFiles,
    receiver: Receiver,
    downloads: Downloads,
    removal: Removal,
    watch: JobWatch,
    secrets: Sequence[str],
    settings: Settings,
) -> RemoteJobs:
    """Connect what is called by workers."""
    tokens = ClaimTokens(secrets)
    claiming = Claiming(db, kind, queues, tokens, InputUrls(tokens, stored.storage), removal, settings.job_timeout)
    return RemoteJobs(
        db,
        kind,
        claiming,
        making.inputs,
        making.writer,
        making.sinks,
        making.limits,
        stored,
        receiver,
        downloads,
        removal,
        watch,
    )
