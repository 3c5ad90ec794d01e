"""The textbook way: what FastAPI's and SQLAlchemy's tutorials show, put together with care.

SQLite is tuned as guides recommend (WAL, synchronous=NORMAL, a long busy timeout), so it is fast and does not fail
under load. Nothing is synced to disk, and work that was accepted is lost with the process.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, UploadFile
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, ForeignKey, event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware.base import BaseHTTPMiddleware

from app.auth.passwords import ARGON2

FOLDER = Path(os.environ["DATA_DIR"])
SECRET = os.environ["JWT_SECRET"]

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
log = logging.getLogger("textbook")

engine = create_async_engine(f"sqlite+aiosqlite:///{FOLDER}/app.db", connect_args={"timeout": 60})
Session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def tune(connection: Any, _: object):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def new_id():
    return str(uuid4())


def utc_now():
    return datetime.now(UTC)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    filename: Mapped[str]
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    status: Mapped[str] = mapped_column(default="UPLOADED", index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    state: Mapped[str] = mapped_column(default="QUEUED")
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DocumentOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    owner_id: str
    filename: str
    content_type: str
    size: int
    sha256: str
    status: str
    created_at: datetime
    updated_at: datetime


class Credentials(BaseModel):
    email: str
    password: str


class Params(BaseModel):
    seconds: float = 1


class Wanted(BaseModel):
    params: Params = Params()


class RequestLog(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]):
        request_id = request.headers.get("x-request-id", new_id())
        started = time.perf_counter()
        response = await call_next(request)
        milliseconds = (time.perf_counter() - started) * 1000
        path = request.url.path
        log.info("%s %s %s %d %.2f ms", request_id, request.method, path, response.status_code, milliseconds)
        response.headers["X-Request-ID"] = request_id
        return response


@asynccontextmanager
async def lifespan(_: FastAPI):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestLog)
bearer = OAuth2PasswordBearer(tokenUrl="/auth/login")


async def get_session() -> AsyncIterator[AsyncSession]:
    async with Session() as session:
        yield session


Db = Annotated[AsyncSession, Depends(get_session)]


async def current_user(token: Annotated[str, Depends(bearer)], session: Db):
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except JWTError:
        raise HTTPException(401, "Invalid token") from None
    user = await session.get(User, claims["sub"])
    if user is None:
        raise HTTPException(401, "Invalid token")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


async def own_document(session: AsyncSession, user: User, document_id: str):
    query = select(Document).where(Document.id == document_id, Document.owner_id == user.id)
    document = (await session.execute(query)).scalar_one_or_none()
    if document is None:
        raise HTTPException(404, "No such document")
    return document


@app.get("/livez")
async def livez():
    return {"status": "ok"}


@app.post("/auth/register", status_code=201)
async def register(credentials: Credentials, session: Db):
    user = User(email=credentials.email, password_hash=ARGON2.hash(credentials.password))
    session.add(user)
    await session.commit()
    return {"id": user.id}


@app.post("/auth/login")
async def login(credentials: Credentials, session: Db):
    user = (await session.execute(select(User).where(User.email == credentials.email))).scalar_one_or_none()
    if user is None or not ARGON2.verify(credentials.password, user.password_hash):
        raise HTTPException(401, "Invalid credentials")
    claims = {"sub": user.id, "exp": utc_now() + timedelta(minutes=15)}
    return {"access_token": jwt.encode(claims, SECRET, algorithm="HS256"), "token_type": "bearer"}


@app.post("/documents", status_code=201, response_model=DocumentOut)
async def upload(file: UploadFile, user: CurrentUser, session: Db):
    content = await file.read()
    document = Document(
        id=new_id(),
        owner_id=user.id,
        filename=file.filename,
        content_type=file.content_type,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    (FOLDER / document.id).write_bytes(content)
    session.add(document)
    await session.commit()
    return document


@app.get("/documents/{document_id}", response_model=DocumentOut)
async def get_document(document_id: str, user: CurrentUser, session: Db):
    return await own_document(session, user, document_id)


@app.post("/documents/{document_id}/process", status_code=202)
async def process(document_id: str, wanted: Wanted, background: BackgroundTasks, user: CurrentUser, session: Db):
    document = await own_document(session, user, document_id)
    if document.status == "PROCESSING":
        raise HTTPException(409, "Already processing")
    document.status = "PROCESSING"
    job = Job(id=new_id(), document_id=document.id)
    session.add(job)
    await session.commit()
    background.add_task(run_job, job.id, wanted.params.seconds)
    return {"document": DocumentOut.model_validate(document), "job": {"id": job.id, "state": job.state}}


async def run_job(job_id: str, seconds: float):
    async with Session() as session:
        job = await session.get_one(Job, job_id)
        job.state = "RUNNING"
        await session.commit()
        await asyncio.sleep(seconds)
        content = (FOLDER / job.document_id).read_bytes()
        document = await session.get_one(Document, job.document_id)
        job.result = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        job.state, document.status = "SUCCEEDED", "COMPLETED"
        await session.commit()
