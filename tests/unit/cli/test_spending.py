"""What runs have cost, added up: exactly, each currency by itself, and what has no price never as nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import make_job
from xray_cli.commands.cost import document, footer, told_total
from xray_cli.spending import Per, group, read_bills, totals


def cost(total: str | None, currency: str = "USD", *, estimated: bool = False, **seconds: int) -> dict[str, Any]:
    """A bill with all of its money in Training."""
    rows = [{"name": name, "seconds": each} for name, each in ({"Training": 60} | seconds).items()]
    told: dict[str, Any] = {"priced": total is not None, "heldSeconds": 60, "phases": rows}
    if total is not None:
        rows[0]["amount"] = total
        told |= {"currency": currency, "total": total, "billedSeconds": 60}
    return told | ({"estimated": True} if estimated else {})


def job(name: str, bill: dict[str, Any], began: str = "2026-11-22T10:00:00Z", **more: Any) -> dict[str, Any]:
    run = {"flavor": more.pop("flavor", "vpod4-vm"), "startedAt": began}
    raw = make_job(name).status({"state": "Succeeded", "run": run, "cost": bill, **more}).raw()
    raw["metadata"]["namespace"] = name.partition("-")[0]
    return raw


JOBS = [
    job("chest-b", cost("2.4750")),
    job("chest-a", cost("0.0001"), began="2026-10-31T23:59:59Z"),
    job("chest-c", cost(None)),
    job("heart-a", cost("1.0000", "EUR", estimated=True), flavor="vpod16-bm"),
]


def test_each_run_has_what_its_status_says() -> None:
    told = document(group(read_bills(JOBS), [Per.RUN]), list(read_bills(JOBS)))["items"]
    assert [(row["name"], row["currency"], row["total"]) for row in told] == [
        ("chest-a", "USD", "0.0001"),
        ("chest-b", "USD", "2.4750"),
        ("chest-c", None, None),
        ("heart-a", "EUR", "1.0000"),
    ]
    assert told[1]["phases"] == {"Training": {"seconds": 60, "amount": "2.4750"}}
    assert told[2]["phases"] == {"Training": {"seconds": 60, "amount": None}}


def test_two_currencies_and_what_has_no_price_are_never_added() -> None:
    assert [(each.currency, told_total(each)) for each in totals(read_bills(JOBS))] == [
        ("", "unpriced"),
        ("EUR", "~1.0000 EUR"),
        ("USD", "2.4751 USD"),
    ]
    assert list(footer(list(read_bills(JOBS)))) == [
        "Total of 1 run: unpriced, 1 min 0 s held",
        "Total of 1 run: ~1.0000 EUR",
        "Total of 2 runs: 2.4751 USD",
        "~ estimated: the end of an attempt was not told; it counts until that was seen.",
    ]


def test_months_namespaces_and_flavors() -> None:
    bills = list(read_bills(JOBS))
    assert [(each.labels, each.currency, each.total) for each in group(bills, [Per.NAMESPACE, Per.MONTH])] == [
        ({"namespace": "chest", "month": "2026-10"}, "USD", Decimal("0.0001")),
        ({"namespace": "chest", "month": "2026-11"}, "", None),
        ({"namespace": "chest", "month": "2026-11"}, "USD", Decimal("2.4750")),
        ({"namespace": "heart", "month": "2026-11"}, "EUR", Decimal("1.0000")),
    ]
    assert [each.labels["flavor"] for each in group(bills, [Per.FLAVOR])] == ["vpod16-bm", "vpod4-vm", "vpod4-vm"]


def test_former_reruns_were_paid_too() -> None:
    former = {"rerun": 0, "state": "Stopped", "flavor": "vpod4-bm", "startedAt": "2026-09-01T00:00:00Z"}
    untold = former | {"cost": "9.00 USD"}  # by an operator of before
    rerun = job("chest-a", cost("1.0000"), rerun=1, formerRuns=[untold, former | {"bill": cost("0.5000")}])
    bills = list(read_bills([rerun]))
    assert [(bill.rerun, bill.state, bill.flavor, bill.began[:7]) for bill in bills] == [
        (0, "Stopped", "vpod4-bm", "2026-09"),
        (1, "Succeeded", "vpod4-vm", "2026-11"),
    ]
    assert totals(bills)[0].total == Decimal("1.5000")


def test_a_job_that_has_held_nothing_has_no_bill() -> None:
    waiting = make_job().status({"state": "Pending", "cost": {"projected": {"source": "hints"}}}).raw()
    assert list(read_bills([make_job().raw(), waiting])) == []


def test_a_preparation_on_a_flavor_without_a_price_leaves_the_rest_its_price_and_is_told() -> None:
    bills = list(read_bills([job("chest-a", cost("1.0000", DataPreparation=600)), job("chest-b", cost("1.0000"))]))
    assert [told_total(each) for each in group(bills, [Per.RUN])] == ["1.0000 USD + unpriced", "1.0000 USD"]
    assert list(footer(bills)) == [
        "Total of 2 runs: 2.0000 USD + unpriced",
        "+ unpriced: a flavor that prepared has no price; what it costs is in no sum.",
    ]
    assert [row["unpricedSeconds"] for row in document(group(bills, [Per.RUN]), bills)["items"]] == [600, 0]
    (each,) = totals(bills[:1])
    assert (each.total, each.amount("DataPreparation"), each.seconds("DataPreparation")) == (
        Decimal("1.0000"),
        None,
        600,
    )


AMOUNTS = st.decimals(0, 1000, places=4).map(str)
BILLS = st.tuples(st.sampled_from(["chest", "heart"]), st.integers(1, 12), AMOUNTS, st.sampled_from(["USD", "EUR"]))


@given(st.lists(BILLS))
def test_whatever_it_is_added_up_by_it_is_the_same_money(made: list[tuple[str, int, str, str]]) -> None:
    jobs = [
        job(f"{namespace}-{number}", cost(total, currency), began=f"2026-{month:02}-01T00:00:00Z")
        for number, (namespace, month, total, currency) in enumerate(made)
    ]
    bills = list(read_bills(jobs))
    for currency in {"USD", "EUR"}:
        money = sum(Decimal(total) for _, _, total, paid in made if paid == currency)
        for per in Per:
            assert sum(each.total or 0 for each in group(bills, [per]) if each.currency == currency) == money


def test_an_empty_list_that_the_api_server_writes_as_null_is_an_empty_list() -> None:
    raw = job("chest-a", cost("1.0000"), formerRuns=None)
    assert [bill.total for bill in read_bills([raw])] == [Decimal("1.0000")]
