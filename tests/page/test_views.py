"""Every view, and every action on it: clicked, then looked for in the API and the log."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.http_api.client import Http, path_of
from tests.page.conftest import Open, sign_in
from tests.support.program import Server, beaver, events_of, eventually


def pending(http: Http, queue: str, count: int = 1, **more: object) -> list[str]:
    """Returns the ids of jobs that wait in a paused queue."""
    assert http.ask("PATCH", f"/v1/queues/{queue}", {"paused": True}).status == 200
    jobs = [
        {"id": f"{queue}-{n}", "task": "add", "payload": {"a": n, "b": 1}, "queue": queue, **more}
        for n in range(count)
    ]
    answer = http.post("/v1/jobs", jobs)
    assert answer.status == 200, answer
    return [str(job["id"]) for job in jobs]


def dead(http: Http, queue: str, count: int = 1, text: str = "no") -> list[str]:
    """Returns the ids of dead jobs."""
    jobs = [
        {"id": f"{queue}-{n}", "task": "fail", "payload": {"text": text}, "queue": queue}
        for n in range(count)
    ]
    assert http.post("/v1/jobs", jobs).status == 200
    for job in jobs:
        assert http.ended(str(job["id"]))["state"] == "dead"
    return [str(job["id"]) for job in jobs]


def state(http: Http, job: str, wanted: str) -> None:
    eventually(lambda: http.job(job)["state"] == wanted, f"{job} is {wanted}")


def confirm(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


# -- who ---------------------------------------------------------------------------------------


def test_a_wrong_token_is_told_and_a_right_one_lets_in(context: BrowserContext, http: Http) -> None:
    page = context.new_page()
    page.goto(f"http://{http.host}:{http.port}/")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    sign_in(page, http.token)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_signing_out_ends_the_session_in_every_window(
    visit: Open, context: BrowserContext, http: Http
) -> None:
    page = visit("queues")
    other = context.new_page()
    other.goto(f"http://{http.host}:{http.port}/#/workers")
    expect(other.get_by_role("heading", name="Workers")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    expect(other.get_by_label("Token")).to_be_visible()


def test_whoever_may_only_read_is_shown_no_action(visit: Open, http: Http, server: Server) -> None:
    token = beaver("token", "create", "--role", "read", "--data", str(server.data), "--json")
    secret = re.search(r'"token": ?"([^"]+)"', token)
    assert secret
    (job,) = dead(http, "seen", text="only to be read")
    page = visit(f"job/{job}", secret[1])
    expect(page.get_by_text("only to be read").first).to_be_visible()
    expect(page.get_by_text("read-only")).to_be_visible()
    acts = re.compile("^(Cancel|Retry|Discard|Pause|Purge|Weight|Drain|Retry all|Select .*)$")
    for view in ("job/seen-0", "jobs?queue=seen", "queues", "workers", "dead"):
        page.goto(f"http://{http.host}:{http.port}/#/{view}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_load_state("networkidle") if view == "queues" else None
        expect(page.get_by_role("button", name=acts)).to_have_count(0)
        expect(page.get_by_role("checkbox")).to_have_count(0)


# -- views -------------------------------------------------------------------------------------


def test_the_overview_tells_what_needs_attention_with_links(visit: Open, http: Http) -> None:
    dead(http, "attention", 2)
    pending(http, "asleep", 3)
    page = visit()
    needs = page.get_by_role("region", name="Needs attention")
    expect(needs.get_by_role("link", name="Queue asleep is paused, 3 wait")).to_be_visible()
    needs.get_by_role("link", name="2 dead in attention").click()
    expect(page.get_by_role("heading", name="Dead letters of attention")).to_be_visible()


def test_the_overview_draws_what_comes_and_goes(visit: Open, http: Http) -> None:
    page = visit()
    chart = page.get_by_role("img", name=re.compile(r"completed [1-9]"))

    def drawn() -> bool:
        http.post("/v1/jobs", [{"task": "add", "payload": {"a": 1, "b": n}} for n in range(50)])
        page.wait_for_timeout(500)
        return bool(chart.count())

    eventually(drawn, "the chart shows that jobs complete")
    page.get_by_role("button", name="1 h").click()
    expect(page.get_by_role("button", name="1 h")).to_have_attribute("aria-pressed", "true")


def test_filters_stand_in_the_address_and_can_be_shared(visit: Open, http: Http) -> None:
    pending(http, "shared", 3, tags=["blue"])
    pending(http, "unshared", 2, tags=["blue"])
    page = visit("jobs")
    page.get_by_label("Queue", exact=True).fill("shared")
    page.get_by_label("Queue", exact=True).press("Enter")
    page.get_by_label("State").select_option("pending")
    expect(page.get_by_text("3 jobs match")).to_be_visible()
    assert "queue=shared" in page.url
    assert "state=pending" in page.url
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_text("3 jobs match")).to_be_visible()
    expect(other.get_by_label("Queue", exact=True)).to_have_value("shared")
    page.get_by_label("Tag").fill("blue")
    page.get_by_label("Tag").press("Enter")
    page.get_by_label("Queue", exact=True).fill("")
    page.get_by_label("Queue", exact=True).press("Enter")
    expect(page.get_by_text("5 jobs match")).to_be_visible()


def test_a_job_shows_each_attempt_its_error_and_its_payload(visit: Open, http: Http) -> None:
    http.post("/v1/jobs", {"id": "attempts", "task": "twice", "payload": None})
    http.ended("attempts")
    page = visit("job/attempts")
    expect(page.get_by_text(re.compile("^attempt 1: failed"))).to_be_visible()
    expect(page.get_by_text(re.compile("^attempt 2: failed"))).to_be_visible()
    error = page.get_by_role("region", name="Error")
    expect(error).to_contain_text("ValueError: again and again")
    expect(page.get_by_role("img", name=re.compile("2 attempts in"))).to_be_visible()


def test_a_number_that_javascript_cannot_hold_is_shown_as_it_is(visit: Open, http: Http) -> None:
    pending(http, "large", payload={"a": 123456789012345678901234567890, "b": 0})
    page = visit("job/large-0")
    expect(page.get_by_text("123456789012345678901234567890")).to_be_visible()


def test_a_job_says_why_it_does_not_run_and_follows_what_happens(visit: Open, http: Http) -> None:
    (job,) = pending(http, "held")
    page = visit(f"job/{job}")
    expect(page.get_by_role("region", name="Why it does not run now")).to_contain_text("paused")
    http.ask("PATCH", "/v1/queues/held", {"paused": False})
    expect(page.get_by_text(re.compile("^attempt 1: completed"))).to_be_visible()
    expect(page.get_by_role("region", name="Result")).to_contain_text("1")


@pytest.mark.parametrize("job", ["a/b", "..", "100%", "ä ö", "?x=1&y#z"])
def test_every_id_can_be_shown(visit: Open, http: Http, job: str) -> None:
    body = {"id": job, "task": "add", "payload": {"a": 1, "b": 2}, "queue": "odd"}
    assert http.post("/v1/jobs", body).status == 201
    page = visit("jobs?queue=odd")
    page.get_by_role("link", name=job, exact=True).click()
    expect(page.get_by_role("heading", name=f"Job {job}")).to_be_visible()


def test_what_is_not_there_is_told(visit: Open) -> None:
    page = visit("job/nobody")
    expect(page.get_by_role("alert")).to_contain_text("nobody")
    page.goto(f"{page.url.partition('#')[0]}#/nowhere")
    expect(page.get_by_role("heading", name="No such view")).to_be_visible()


def test_workers_show_what_they_run(visit: Open, http: Http) -> None:
    http.post("/v1/jobs", {"id": "long", "task": "wait", "payload": None})
    page = visit("workers")
    expect(page.get_by_role("link", name="long")).to_be_visible()
    http.post("/v1/jobs/long/cancel")
    expect(page.get_by_text("0 of 2 are busy.")).to_be_visible()


# -- actions -----------------------------------------------------------------------------------


def test_cancel_and_its_undo(visit: Open, http: Http, server: Server) -> None:
    (job,) = pending(http, "undo")
    page = visit(f"job/{job}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    confirm(page, "Cancel")
    state(http, job, "cancelled")
    page.get_by_role("button", name="Retry", exact=True).click()
    state(http, job, "pending")
    assert events_of(server.data / "wal.log", job) == ["ENQUEUE", "CANCEL", "REQUEUE"]


def test_whoever_thinks_again_changes_nothing(visit: Open, http: Http) -> None:
    (job,) = pending(http, "kept")
    page = visit(f"job/{job}")
    page.get_by_role("button", name="Discard").click()
    confirm(page, "Keep as it is")
    page.get_by_role("button", name="Discard").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert http.job(job)["state"] == "pending"


def test_discard(visit: Open, http: Http) -> None:
    (job,) = dead(http, "gone")
    page = visit(f"job/{job}")
    page.get_by_role("button", name="Discard").click()
    confirm(page, "Discard")
    state(http, job, "discarded")
    expect(page.get_by_role("button", name="Discard")).to_have_count(0)


def test_retry_with_another_payload(visit: Open, http: Http) -> None:
    (job,) = dead(http, "again")
    page = visit(f"job/{job}")
    page.get_by_role("button", name="Retry with another payload").click()
    area = page.get_by_role("dialog").get_by_role("textbox")
    area.fill('{"text": ')
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(page.get_by_text("The payload is not JSON")).to_be_visible()
    area.fill('{"text": "other 12345678901234567890"}')
    confirm(page, "Retry")
    eventually(lambda: http.job(job)["payload"] != {"text": "no"}, "it has the payload")
    assert http.ended(job)["state"] == "dead"
    expect(page.get_by_text("ValueError: other 12345678901234567890").first).to_be_visible()


def test_a_queue_is_paused_weighed_and_resumed(visit: Open, http: Http) -> None:
    http.ask("PATCH", "/v1/queues/handled", {"weight": 5})
    page = visit("queues")
    page.get_by_role("button", name="Pause handled").click()
    expect(page.get_by_role("button", name="Resume handled")).to_be_visible()
    assert http.get("/v1/queues/handled").json["paused"] is True
    page.get_by_role("button", name="Set the weight of handled").click()
    page.get_by_label("Weight, 1 to 1,000").fill("7")
    confirm(page, "Set weight")
    page.get_by_role("button", name="Resume handled").click()
    expect(page.get_by_role("button", name="Pause handled")).to_be_visible()
    found = http.get("/v1/queues/handled").json
    assert (found["paused"], found["weight"]) == (False, 7)


def test_a_queue_is_purged_after_its_count_was_told(visit: Open, http: Http) -> None:
    jobs = pending(http, "full", 4)
    page = visit("queues")
    page.get_by_role("button", name="Purge full").click()
    confirm(page, "Remove 4 jobs")
    for job in jobs:
        state(http, job, "discarded")


def test_an_action_on_what_is_selected(visit: Open, http: Http) -> None:
    jobs = pending(http, "some", 5)
    page = visit("jobs?queue=some")
    for job in jobs[1:4]:
        page.get_by_role("checkbox", name=f"Select {job}").check()
    page.get_by_role("toolbar").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text("3 jobs")
    confirm(page, "Cancel 3 jobs")
    expect(page.get_by_text("Cancel: 3 done")).to_be_visible()
    assert [http.job(job)["state"] for job in jobs] == [
        "pending", "cancelled", "cancelled", "cancelled", "pending"
    ]  # fmt: skip


def test_an_action_on_all_that_match(visit: Open, http: Http) -> None:
    jobs = pending(http, "every", 250)
    spared = pending(http, "spared", 1)
    page = visit("jobs?queue=every&state=pending")
    page.get_by_role("button", name="Select all 250 that match").click()
    page.get_by_role("toolbar").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text("250")
    confirm(page, "Cancel 250 jobs")
    expect(page.get_by_text("Cancel: 250 done, 0 refused")).to_be_visible()
    assert http.get("/v1/queues/every").json["cancelled"] == 250
    assert http.job(spared[0])["state"] == "pending"
    assert http.job(jobs[-1])["state"] == "cancelled"


def test_dead_letters_are_grouped_and_retried_as_one(visit: Open, http: Http) -> None:
    ones = dead(http, "grouped", 3, "the first kind")
    others = [f"{job}-other" for job in dead(http, "grouped-too", 2, "the second kind")]
    assert others
    page = visit("dead?queue=grouped")
    row = page.get_by_role("row").filter(has_text="the first kind")
    expect(row.get_by_role("cell", name="3", exact=True)).to_be_visible()
    row.get_by_role("button", name="Retry all").click()
    confirm(page, "Retry all")
    expect(page.get_by_text("Retry: 3 done, 0 refused")).to_be_visible()
    for job in ones:
        events = http.get(f"{path_of(job)}/history").json["events"]
        assert "REQUEUE" in [event["event"] for event in events]


# -- everybody ---------------------------------------------------------------------------------


def test_the_keyboard_is_enough(visit: Open, http: Http) -> None:
    (job,) = pending(http, "keys")
    page = visit()
    page.keyboard.press("Control+k")
    page.keyboard.type(job)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Job {job}")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("Queues")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_axe_finds_nothing(visit: Open, http: Http, scheme: str, width: int) -> None:
    """On any view, light and dark, wide and narrow."""
    queue = f"axe-{scheme}-{width}"
    (job,) = dead(http, queue)
    pending(http, f"{queue}-p")
    page = visit()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 800})
    for view in ("overview", "jobs?state=dead", f"job/{job}", "queues", "workers", "dead"):
        page.goto(f"{page.url.partition('#')[0]}#/{view}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.wait_for_timeout(200)
        found = Axe().run(page)
        assert found.violations_count == 0, (view, found.generate_report())
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{view} is wider than the window"


def test_a_remote_worker_is_shown_and_drained(visit: Open, http: Http) -> None:
    body = {"name": "far-away", "tasks": ["elsewhere"], "capacity": 3}
    worker = http.post("/v1/workers", body).json["worker"]
    page = visit("workers")
    row = page.get_by_role("row").filter(has_text="far-away")
    expect(row).to_contain_text("0 of 3")
    row.get_by_role("button", name="Drain worker far-away").click()
    expect(row).to_contain_text("draining")
    beat = http.post(f"/v1/workers/{worker}/heartbeat", {"running": []})
    assert beat.json["drain"] is True
    http.ask("DELETE", f"/v1/workers/{worker}")
    expect(page.get_by_text("far-away")).to_have_count(0)
