"""A FastAPI application with a SQLite database through SQLAlchemy, opened by its lifespan.

STARTUP_DELAY (seconds) makes that lifespan slow.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The database's tables."""


class Item(Base):
    """One thing in stock."""

    __tablename__ = "item"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    stock: Mapped[int]


class NewItem(BaseModel):
    """An item as clients send it."""

    name: str
    stock: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open the database for as long as the application runs."""
    await asyncio.sleep(float(os.environ.get("STARTUP_DELAY", "0")))
    directory = Path(os.environ.get("STATE_DIRECTORY", "."))
    engine = create_engine(f"sqlite:///{directory / 'stock.db'}")
    with engine.begin() as connection:
        # Several workers start at once: SQLite's own check is under its write lock.
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS item (name VARCHAR PRIMARY KEY, stock INTEGER NOT NULL)"
        )
    yield {"engine": engine}
    engine.dispose()


app = FastAPI(lifespan=lifespan)
app.state.waiting = 0


@app.post("/items", status_code=201)
def add(item: NewItem, request: Request) -> NewItem:
    """Add an item."""
    with Session(request.state.engine) as session, session.begin():
        if session.get(Item, item.name):
            raise HTTPException(409, f"{item.name} exists")
        session.add(Item(name=item.name, stock=item.stock))
    return item


@app.get("/items")
def items(request: Request) -> list[NewItem]:
    """All items, by name."""
    with Session(request.state.engine) as session:
        found = session.scalars(select(Item).order_by(Item.name))
        return [NewItem(name=item.name, stock=item.stock) for item in found]


@app.get("/who")
async def who(request: Request) -> dict[str, int]:
    """Which generation, process and thread answers."""
    service = request.scope["extensions"].get("pounce", {})
    return {
        "generation": service.get("generation", 0),
        "pid": os.getpid(),
        "thread": threading.get_native_id(),
    }


@app.get("/environment")
async def environment() -> list[str]:
    """The names of the environment's variables."""
    return list(os.environ)


@app.get("/secret")
async def secret() -> str:
    """What the file says whose path is in $SECRET."""
    return Path(os.environ["SECRET"]).read_text()


@app.get("/wait/{seconds}")
async def wait(seconds: float) -> dict[str, float]:
    """Answer after a while, without blocking anybody else."""
    app.state.waiting += 1
    await asyncio.sleep(seconds)
    app.state.waiting -= 1
    return {"waited": seconds}


@app.get("/waiting")
async def waiting() -> int:
    """How many requests are in `wait` in this process."""
    return int(app.state.waiting)


@app.get("/fail")
async def fail() -> None:
    """Raise, as applications sometimes do."""
    raise LookupError("nothing is there")
