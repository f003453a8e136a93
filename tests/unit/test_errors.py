"""The one table of error classes: fifth leg of the promise."""

import pickle

import pytest

from pipeline.errors import (
    ACTIONS,
    Action,
    BatchShapeError,
    ConfigError,
    EnvironmentFault,
    OwnershipError,
    Reason,
    RecordError,
    TransientError,
    UnknownOutcomeError,
    action_for,
    nearest,
)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (RecordError(Reason.TEXT_EMPTY), Action.DEAD_LETTER),
        (BatchShapeError(), Action.SPLIT),
        (TransientError("down"), Action.RETRY),
        (UnknownOutcomeError("cut"), Action.RETRY),
        (OwnershipError(), Action.DROP),
        (EnvironmentFault(), Action.STOP),
        (ZeroDivisionError(), Action.STOP),
        (ConfigError(), Action.STOP),
    ],
)
def test_each_class_has_one_action_and_the_unknown_stops(error: Exception, action: Action) -> None:
    assert action_for(error) is action


def test_only_a_record_error_is_ever_dead_lettered() -> None:
    assert [cls for cls, action in ACTIONS.items() if action is Action.DEAD_LETTER] == [RecordError]


@pytest.mark.parametrize(
    "error", [RecordError(Reason.TEXT_EMPTY, "body"), TransientError("slow", retry_after_s=3), UnknownOutcomeError("x")]
)
def test_errors_travel_between_processes_whole(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - Ray pickles exceptions; these are our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_nearest_names_what_is_close_and_nothing_otherwise() -> None:
    assert nearest("urgncy", ["urgency", "topic"]) == " Did you mean 'urgency'?"
    assert nearest("zzz", ["urgency"]) == ""
