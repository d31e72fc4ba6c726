"""The outbox through what applications have open: DB-API, SQLAlchemy, Django's ORM."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from beaver import Beaver, InvalidInput, outbox
from tests.outbox.conftest import Shop
from tests.support.program import environment, events

APP = Beaver("unused")


def alchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def settle(shop: Shop, job: str, never: str) -> None:
    """The committed job comes in, and the one that was rolled back does not."""
    assert shop.rows() == [job]
    with closing(shop.relay()) as relay:
        assert tuple(relay.drain()) == (1, 0)
    came_in = [event["job"] for event in events(shop.data) if event["event"] == "ENQUEUE"]
    assert came_in.count(job) == 1
    assert never not in came_in


def test_a_cursor_of_dbapi(shop: Shop) -> None:
    job, never = f"cursor-{shop.url[:6]}", f"never-cursor-{shop.url[:6]}"
    with closing(shop.connect()) as connection:
        cursor = connection.cursor()
        assert outbox.add(cursor, APP.request("echo", {"%s": "?"}, id=job)) == [job]
        connection.commit()
        outbox.add(cursor, APP.request("echo", 1, id=never))
        connection.rollback()
    settle(shop, job, never)


@pytest.mark.parametrize("kind", ["connection", "session", "scoped"])
def test_sqlalchemy(shop: Shop, kind: str) -> None:
    job, never = f"{kind}-{shop.url[:6]}", f"never-{kind}-{shop.url[:6]}"
    engine = sqlalchemy.create_engine(alchemy_url(shop.url))
    target: Any
    if kind == "connection":
        target = engine.connect()
    elif kind == "session":
        target = Session(engine)
    else:
        target = scoped_session(sessionmaker(engine))
    payload = {"a": ":b", "c": "%(d)s", "n": 2**70}
    assert outbox.add(target, APP.request("echo", payload, id=job, tags=["ü"])) == [job]
    target.commit()
    outbox.add(target, APP.request("echo", 1, id=never))
    target.rollback()
    target.close()
    engine.dispose()
    settle(shop, job, never)
    assert shop.app.handle(job).result(timeout=20) == payload


def test_what_is_awaited_is_refused_with_the_way_to_do_it() -> None:
    """A coroutine that nobody awaits would be a job that nobody has."""
    target = object.__new__(psycopg.AsyncConnection)
    with pytest.raises(InvalidInput, match=r"run_sync\(outbox.add"):
        outbox.add(target, APP.request("echo"))


DJANGO = """
import sys
import django
from django.conf import settings

kind, name, host, job, never = sys.argv[1:]
settings.configure(DATABASES={"default": {
    "ENGINE": f"django.db.backends.{kind}", "NAME": name, "USER": "postgres", "HOST": host,
}})
django.setup()
from django.db import connection, connections, models, transaction
from beaver import Beaver, InvalidInput, outbox


class Order(models.Model):
    id = models.TextField(primary_key=True)

    class Meta:
        app_label, db_table = "shop", "orders"


request = Beaver("unused").request
with transaction.atomic():
    Order.objects.create(id=job)
    outbox.add(connection, request("echo", {"100%": "%s"}, id=job))
try:
    with transaction.atomic():
        Order.objects.create(id=never)
        outbox.add(connections["default"], request("echo", 1, id=never))
        raise KeyError
except KeyError:
    pass
assert [order.id for order in Order.objects.all()] == [job]
with connection.cursor() as cursor:
    for statement in outbox.schema(connection.vendor):
        cursor.execute(statement)
"""


def test_djangos_orm(shop: Shop) -> None:
    job, never = f"django-{shop.url[:6]}", f"never-django-{shop.url[:6]}"
    if shop.url.startswith("sqlite"):
        where = ("sqlite3", shop.url.removeprefix("sqlite:///"), "")
    else:
        where = ("postgresql", "postgres", shop.url.partition("host=")[2])
    subprocess.run(
        [sys.executable, "-c", DJANGO, *where, job, never],
        check=True,
        timeout=60,
        env=environment(),
    )
    settle(shop, job, never)


def test_the_schema_is_what_migrations_can_run(shop: Shop) -> None:
    """Twice, and under a name of its own."""
    dialect = "sqlite" if shop.url.startswith("sqlite") else "postgresql"
    with closing(shop.connect()) as connection:
        outbox.create(connection, dialect, "my_jobs")
        for statement in outbox.schema(dialect, "my_jobs"):
            connection.execute(statement)
        outbox.add(connection, APP.request("echo", 1, id=f"own-{dialect}"), table="my_jobs")
        connection.commit()
    with closing(shop.relay(table="my_jobs")) as relay:
        assert relay.lag().waiting == 1
        assert tuple(relay.drain()) == (1, 0)
    with closing(shop.connect()) as connection:
        connection.execute("DROP TABLE my_jobs")
        connection.commit()
