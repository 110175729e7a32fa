"""The simulation: the same plan gives the same figures, known cases come out as in theory, wrong constants show."""

import msgspec
import pytest

from tests.scale.check import check
from tests.scale.costs import Costs, Each, imbalance, predict
from tests.scale.measured import Gate, Job, Measured
from tests.scale.model import lose, queue, shortest_interval_s, simulate
from tests.scale.population import Plan

MILLION = 1_000_000
COSTS = Costs(
    users=MILLION,
    callers=2_000,
    script_us=20.0,
    redis_cpu_us=25.0,
    web_cpu_us=50.0,
    fallbacks_per_s=1_000.0,
    rows={"snapshot": 100_000, "sync of some": 1_000, "expire": 100_000},
    each={
        "restore": Each(20.0, 15.0, 8.0),
        "sync of all": Each(40.0, 30.0, 12.0),
        "sync of a bucket": Each(1.0, 0.5, 0.1),
        "sync of some": Each(80.0, 40.0, 12.0),
        "snapshot": Each(50.0, 40.0, 15.0),
        "expire": Each(20.0, 5.0, 0.1),
    },
    grows={"snapshot": Each(12.0, 10.0, 1.0)},
    longest_ms=3.0,
    redis_bytes={
        "empty": 1e6,
        "session": 170.0,
        "total": 80.0,
        "total of a window": 80.0,
        "callers, a bucket": 12_304.0,
    },
    postgres_bytes={"users": 250.0, "sessions": 220.0},
)


def measured_as_predicted(costs: Costs, users: int) -> Measured:
    """A size at which everything is as those constants foresee."""
    figures = predict(costs, users)
    jobs = {
        name: Job(costs.rows.get(name, 1), figures[f"{name}, s"], figures[f"{name}, CPU s"], 0.0, 0.0, 0.0, "")
        for name in ("restore", "sync of all", "sync of a bucket", "sync of some", "snapshot", "expire")
    }
    return Measured(
        users=users,
        lost=64,
        dirty=100_000,
        gate=Gate(2_000, 1, 1.0, 1.0, costs.script_us, costs.redis_cpu_us, costs.web_cpu_us, 1.43),
        fallbacks_per_s=costs.fallbacks_per_s,
        jobs=jobs,
        reads_ms={},
        counted=users,
        redis_bytes=costs.redis_bytes,
        redis_used=round(figures["Redis memory, MB"] * 1e6),
        redis_resident=0,
        postgres_bytes={"all": round(figures["PostgreSQL, MB"] * 1e6)},
        load_average=[0.0, 0.0],
        measured_at="",
        took_s=0.0,
    )


def test_the_check_finds_nothing_wrong_with_measurements_that_are_as_foreseen() -> None:
    assert [it for it in check(COSTS, [measured_as_predicted(COSTS, 10 * MILLION)]) if not it.is_within(0.05)] == []


@pytest.mark.parametrize(
    ("job", "figures"),
    [("restore", {"restore, s"}), ("sync of all", {"sync of all, s"}), ("expire", {"expire, s"})],
)
def test_a_wrong_constant_is_seen(job: str, figures: set[str]) -> None:
    wrong = msgspec.structs.replace(
        COSTS, each=COSTS.each | {job: msgspec.structs.replace(COSTS.each[job], time_us=COSTS.each[job].time_us * 2)}
    )
    seen = {it.figure for it in check(wrong, [measured_as_predicted(COSTS, 10 * MILLION)]) if not it.is_within()}
    assert seen == figures


def test_wrong_bytes_are_seen() -> None:
    wrong = msgspec.structs.replace(COSTS, redis_bytes=COSTS.redis_bytes | {"session": 300.0})
    seen = {it.figure for it in check(wrong, [measured_as_predicted(COSTS, 10 * MILLION)]) if not it.is_within()}
    assert seen == {"Redis memory, MB"}


def test_the_same_plan_gives_the_same_figures_and_another_seed_others() -> None:
    plan = Plan(
        users=100 * MILLION, shards=64, calls_per_s=200_000.0, hot_users=10, hot_calls_per_s=500.0, processes=40
    )
    assert simulate(plan, COSTS) == simulate(plan, COSTS)
    other = msgspec.structs.replace(plan, seed=2)
    assert other.bucket_calls_per_s != plan.bucket_calls_per_s


def test_nobody_and_no_call_gets_lost_among_the_groups() -> None:
    for skew in (0.0, 0.8, 1.0, 1.2):
        plan = Plan(users=10 * MILLION, shards=8, calls_per_s=20_000.0, skew=skew, hot_users=3, hot_calls_per_s=100.0)
        assert sum(count for count, _ in plan.groups) == pytest.approx(10 * MILLION)
        assert sum(plan.shard_calls_per_s) == pytest.approx(20_300.0)


def test_a_queue_without_jobs_waits_as_long_as_theory_says() -> None:
    """M/D/1 at half load: half a service time on average, so the median is below one and p99 about 4."""
    calm = msgspec.structs.replace(COSTS, each=COSTS.each | {"snapshot": Each(0.0, 0.0, 0.0)})
    half = queue(Plan(users=MILLION, calls_per_s=20_000.0, skew=0.0), calm)
    assert half.busy == pytest.approx(0.5, abs=0.01)
    assert 0.0 <= half.p50_ms < 0.025
    assert 0.06 < half.p99_ms < 0.13


def test_snapshots_have_to_be_so_far_apart_that_each_ends_before_the_next() -> None:
    plan = Plan(users=100 * MILLION, shards=64, calls_per_s=200_000.0)
    one, four = (shortest_interval_s(plan, 100.0, at_once) for at_once in (1, 4))
    assert plan.distinct(one) * 100e-6 == pytest.approx(one, rel=0.02)
    assert one / four > 4
    assert shortest_interval_s(msgspec.structs.replace(plan, users=MILLION, calls_per_s=2_000.0), 40.0, 1) < 1


def test_a_hot_user_makes_one_shard_wait() -> None:
    plan = Plan(users=100 * MILLION, shards=64, calls_per_s=200_000.0)
    hot = msgspec.structs.replace(plan, hot_users=1, hot_calls_per_s=38_000.0)
    assert queue(hot, COSTS).busy > 1 > 0.9 > queue(plan, COSTS).busy
    assert queue(hot, COSTS).p99_ms > 10 * queue(plan, COSTS).p99_ms


def test_a_bucket_is_on_one_shard_and_equal_ranges_of_slots_leave_most_shards_empty() -> None:
    dealt = Plan(users=MILLION, shards=64)
    ranges = msgspec.structs.replace(dealt, dealt=False)
    assert sorted(dealt.shard_of) == list(range(64))
    assert len(set(ranges.shard_of)) == 34


def test_a_lost_shard_is_read_back_from_postgresql() -> None:
    plan = Plan(users=8 * MILLION, shards=8, calls_per_s=16_000.0, skew=0.0, processes=8)
    loss = lose(plan, COSTS)
    assert loss.users_share == 1 / 8
    assert loss.sync_s == pytest.approx(MILLION * 30e-6)
    assert loss.restore_s == pytest.approx(1.2 * MILLION * 15e-6)
    assert loss.refused == 0
    assert loss.fallbacks == pytest.approx(2_000 * loss.sync_s, rel=0.01)
    assert loss.settled_s == pytest.approx(loss.sync_s, abs=0.2)


def test_too_few_processes_refuse_calls_when_a_shard_is_lost() -> None:
    plan = Plan(users=10 * MILLION, shards=2, calls_per_s=50_000.0, skew=0.0, processes=4)
    loss = lose(plan, COSTS)
    assert loss.refused > 0
    assert loss.worst_wait_s == pytest.approx(5.0, rel=0.1)


def test_imbalance_falls_with_the_number_of_callers() -> None:
    assert imbalance(MILLION, 2_000) == pytest.approx(1.43, abs=0.08)
    assert 1 < imbalance(MILLION, 8_000) < imbalance(MILLION, 2_000)


def test_growth_is_the_difference_of_two_sizes_for_each_doubling() -> None:
    one, four = (measured_as_predicted(COSTS, users) for users in (MILLION, 4 * MILLION))
    costs = Costs.fit(one, four)
    assert costs.grows["snapshot"].cpu_us == pytest.approx(10.0)
    assert costs.of("snapshot", 16 * MILLION).time_us == pytest.approx(50.0 + 4 * 12.0)
    assert costs.of("snapshot", 16 * MILLION).cpu_us == pytest.approx(40.0 + 4 * 10.0)
    assert costs.of("expire", 16 * MILLION).cpu_us == pytest.approx(5.0)
    assert Costs.fit(one).of("snapshot", 16 * MILLION).cpu_us == pytest.approx(40.0)


def test_what_a_constant_was_fitted_to_does_not_count_as_foretold() -> None:
    sizes = [measured_as_predicted(COSTS, users) for users in (MILLION, 4 * MILLION, 16 * MILLION)]
    fitted = {(it.figure, it.users // MILLION) for it in check(COSTS, sizes) if it.fitted}
    assert {users for _, users in fitted} == {1, 4}
    assert {figure for figure, users in fitted if users == 4} == {"snapshot, s", "snapshot, CPU s"}
    assert not any(it.fitted for it in check(COSTS, sizes) if it.users == 16 * MILLION)
