"""Rows of several kinds as one table."""

from reference_impl.events import EventLog


def test_texts_of_any_script_and_gaps_are_kept() -> None:
    log = EventLog(None)
    reasons = ["voll", None, "満杯", "", "voll"]
    log.reject += [(float(moment), moment, reason) for moment, reason in enumerate(reasons)]
    rows = log.table()
    rows.validate(full=True)
    assert rows.column("reason").to_pylist() == reasons
    assert rows.column("kind").to_pylist() == ["reject"] * 5
    assert rows.column("lane").to_pylist() == [None] * 5


def test_whole_numbers_may_be_missing() -> None:
    log = EventLog(None)
    log.finish += [(0.0, 1, None, None, 5), (1.0, 2, 0, "decode", 6)]
    rows = log.table()
    rows.validate(full=True)
    assert rows.column("instance").to_pylist() == [None, 0]
    assert rows.column("tokens").to_pylist() == [5, 6]
