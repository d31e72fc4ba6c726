"""How to test an application: in memory, on a clock that the test moves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shop import app, pack, take_order

from beaver import JobFailed


def test_an_order_is_taken_packed_and_confirmed():
    with app.testing() as testing:
        started = testing.now
        order = take_order.enqueue(17, "chair", to="ada@example.org")
        testing.drain(scheduled=True)
        assert order.result()["order"] == 17
        assert testing.results("send_receipt") == ["receipt for 17 sent to ada@example.org"]
        assert testing.now - started == timedelta(minutes=1)
        assert testing.jobs("pending") == []


def test_an_order_that_cannot_be_filled_leaves_no_jobs():
    with app.testing() as testing:
        order = take_order.enqueue(18, "sofa", to="ada@example.org")
        assert testing.drain(scheduled=True) == 1
        with pytest.raises(JobFailed, match="we do not sell sofa"):
            order.result()


def test_the_same_order_twice_is_one_order():
    with app.testing() as testing:
        for _ in range(2):
            take_order.options(id="order-19").enqueue(19, "table", to="ada@example.org")
        assert len(testing.jobs(task="take_order")) == 1


def test_a_job_is_a_function(capsys):
    pack(20, "chair")
    assert capsys.readouterr().out == "packing chair for order 20\n"
