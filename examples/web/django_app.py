"""Django: a project in one file, with an order and its job in one transaction.

    python django_app.py migrate
    python django_app.py runserver
    beaver outbox relay --db sqlite:///shop.db

The job is a row of the outbox, so it comes in if the order was committed, and only then.  The
second view waits for the result in the request; the third enqueues without the outbox.
"""

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from jobs import queue, send_receipt

from beaver import JobFailed, NotFound, StoreUnavailable, WaitTimeout, outbox

DATABASE = Path(os.environ.get("SHOP_DB", "shop.db")).absolute()

settings.configure(
    SECRET_KEY="only an example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
)
django.setup()


def place(request: HttpRequest, order: int) -> HttpResponse:
    job = send_receipt.options(id=f"receipt-{order}").request(order, to=request.GET["to"])
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders (id) VALUES (%s)", [order])
        outbox.add(connection, job)
        if order == 13:
            raise ValueError("an order that is rolled back, and its job with it")
    return JsonResponse({"job": job.id}, status=202)


def place_without_outbox(request: HttpRequest, order: int) -> HttpResponse:
    try:
        handle = send_receipt.options(id=f"receipt-{order}").enqueue(order, to=request.GET["to"])
    except StoreUnavailable:
        return HttpResponse("try again later", status=503, headers={"Retry-After": "5"})
    return JsonResponse({"job": handle.id}, status=202)


def result(request: HttpRequest, job: str) -> HttpResponse:
    try:
        found = queue.handle(job).result(timeout=float(request.GET.get("wait", 0)))
    except WaitTimeout:
        return JsonResponse({"state": "pending"})
    except JobFailed as error:
        return JsonResponse({"state": error.state, "error": error.error})
    except NotFound as error:
        raise Http404(str(error)) from error
    return JsonResponse({"state": "completed", "result": found})


urlpatterns = [
    path("orders/<int:order>", place),
    path("orders/<int:order>/now", place_without_outbox),
    path("jobs/<path:job>", result),
]


def migrate() -> None:
    """Stands for migrations: `RunSQL` takes what `outbox.schema` returns."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)")
        for statement in outbox.schema(connection.vendor):
            cursor.execute(statement)


if __name__ == "__main__":
    if sys.argv[1:] == ["migrate"]:
        migrate()
    else:
        execute_from_command_line(sys.argv)
