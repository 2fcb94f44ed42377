"""FastAPI, with a query by SQLAlchemy and a frame of pandas in each answer, for preload.py."""

import contextlib

import fastapi
import pandas
import preload_stamp
import sqlalchemy
import sqlalchemy.orm
from sqlalchemy.pool import StaticPool


class Base(sqlalchemy.orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)
    price: sqlalchemy.orm.Mapped[float]


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(app.state.engine)
    with sqlalchemy.orm.Session(app.state.engine) as session, session.begin():
        session.add_all(Item(id=at, price=at / 2) for at in range(10))
    preload_stamp.came_up()
    yield
    app.state.engine.dispose()


app = fastapi.FastAPI(lifespan=lifespan)


@app.get("/")
async def hello() -> dict[str, float]:
    with sqlalchemy.orm.Session(app.state.engine) as session:
        prices = list(session.scalars(sqlalchemy.select(Item.price)))
    return {**preload_stamp.answer(), "mean": float(pandas.Series(prices).mean())}
