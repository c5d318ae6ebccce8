"""Errors in what a flow's author wrote."""

from __future__ import annotations

import functools

import pytest

from telflow import TelemetryBatch
from telflow.errors import UserFunctionError
from telflow.user_functions import call, name_of
from tests.batches import spans

BATCH = spans([{"user.email": "ada@shop.example"}] * 3)


class Counter:
    def __call__(self, batch: TelemetryBatch) -> int:
        return batch.num_rows


def test_the_result_is_handed_on() -> None:
    """A function that works is just called."""
    assert call("step", Counter(), BATCH) == 3


def test_an_error_names_step_function_and_size_but_no_data() -> None:
    """A person finds the place; nothing of the batch is in the message; the cause is kept."""

    def broken(batch: TelemetryBatch) -> None:
        raise LookupError(f"row {batch.num_rows}")

    with pytest.raises(UserFunctionError) as caught:
        call("flow.mine", broken, BATCH)
    assert str(caught.value).startswith("step 'flow.mine': function test_an_error")
    assert str(caught.value).endswith("broken raised LookupError: row 3 (on 3 records of traces)")
    assert "ada@" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


def test_callables_of_every_kind_have_a_name() -> None:
    """Functions, objects and partial functions."""
    assert name_of(Counter()) == "Counter"
    assert name_of(functools.partial(print)) == "partial"
    assert name_of(str.upper) == "str.upper"
