"""Dates in any usual form leave free texts; numbers that are no dates stay."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CACScoringLib.core.acquisition import Acquisition, unnamed, unnamed_message
from CACScoringLib.core.dates import without_dates

MONTHS = tuple(
    line.split()
    for line in (
        "January February March April May June July August September October November December",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    )
)
FORMS = (
    *("{d:02}.{m:02}.{y}", "{d}.{m}.{y}", "{d}. {m}. {y}", "{d}/{m}/{y}", "{m}/{d}/{y}", "{m:02}-{d:02}-{y}"),
    *("{y}-{m:02}-{d:02}", "{y}/{m}/{d}", "{y}{m:02}{d:02}", "{d:02}{m:02}{y}", "{y}.{m:02}.{d:02}", "{d} {m} {y}"),
    *("{d} {name} {y}", "{d}. {name} {y}", "{d:02}{short}{y}", "{d}-{short}-{y}", "{name} {d}, {y}", "{short} {d} {y}"),
    *("{y} {short} {d}", "{d} of {name} {y}", "{d} de {name} de {y}", "{d}th {name} {y}", "{d:02}_{m:02}_{y}"),
)
SHORT_FORMS = (
    *("{d}.{m}.{y:02}", "{d:02}.{m:02}.{y:02}", "{m}/{d}/{y:02}", "{y:02}-{m:02}-{d:02}", "{d:02}{m:02}{y:02}"),
    *("{y:02}{m:02}{d:02}", "{d} {short} {y:02}", "{short} {d}, '{y:02}", "{d:02}{short}{y:02}"),
)
DAYS = st.dates(date(1901, 1, 2), date(2099, 12, 31))
AROUND = st.sampled_from(("", "*", "geb.", "DOB ", "CaSc 3.0 ", "(", "B35f_", "born "))


def written(form, day, months, year=None):
    name = months[day.month - 1]
    return form.format(
        d=day.day,
        m=day.month,
        y=day.year if year is None else year,
        name=name,
        short=name[: 4 if name[:3] == "jui" else 3],
    )


@settings(deadline=None)
@given(DAYS, st.sampled_from(FORMS), st.sampled_from(MONTHS), AROUND, st.sampled_from(("", " 3.0 mm", ")", "_1")))
def test_a_date_with_a_year_of_four_digits_leaves_any_text(day, form, months, before, after):
    text = written(form, day, months)
    if before == "B35f_" and form.startswith("{y}"):
        before = "B35f "
    for dates, every in (((), True), ((day,), False)):
        assert without_dates(f"{before}{text}{after}", dates, every) == f"{before}scan{after}"


@settings(deadline=None)
@given(DAYS, st.sampled_from(SHORT_FORMS), st.sampled_from(MONTHS), AROUND)
def test_a_known_date_leaves_with_a_year_of_two_digits_too(day, form, months, before):
    text = f"{before}{written(form, day, months, day.year % 100)}"
    assert without_dates(text, (day,), False) == f"{before}scan"
    assert without_dates(text, (), True) == text


@pytest.mark.parametrize(
    "text",
    [
        "CaSc 3.0 B35f",
        "1.2.840.10008.5",
        "Thorax 1.5 2.0 120",
        "v2.10.3",
        "30 % 3.0/2.0",
        "2024",
        "99.99.1950",
        "Mark 4 B",
    ],
)
def test_what_is_no_date_stays(text):
    assert without_dates(text, [date(1950, 1, 2)]) == text


PERSON = Acquisition(
    "DICOM", patient_name="Hart^Eva", patient_id="ID-4711", patient_birth_date="1950-01-02", study_date="2024-03-09"
)


@pytest.mark.parametrize(
    "text", ["2.1.50", "1950-01-02", "9 Mar 24", "20240309", "Hart", "EVA", "id4711", "Hart_Eva_02.01.50"]
)
def test_texts_state_neither_dates_nor_names_nor_ids(text):
    assert unnamed(f"CaSc 3.0 {text}", PERSON) == "CaSc 3.0 scan"


def test_messages_keep_their_words_but_no_files_or_dates_of_the_patient():
    message = "The heart is cut. 2 files (Hart_Eva_1.dcm, im-2.dcm) of 09.03.2024 and 20230101, ID-4711, /data/Eva/ct."
    expected = "The heart is cut. 2 files (scan, im-2.dcm) of scan and scan, scan, /data/scan/ct."
    assert unnamed_message(message, PERSON) == expected
