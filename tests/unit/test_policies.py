"""The parser of named limits, and the choice among them."""

from itertools import permutations

import pytest

from models.errors import UnknownPolicy
from models.limits import MAX_LIMITS, parse_limits
from models.policies import MAX_APPLIED, MAX_POLICIES, Policies, Policy, parse_policies

NAMED = "default=1/5s; search=20/1m, 500/1h; shadow:strict=5/1m"


def test_limits_without_a_name_are_the_default() -> None:
    assert parse_policies("1/5s, 2/60s") == (Policy("default", parse_limits("1/5s, 2/60s")),)


def test_each_policy_has_its_name_its_limits_and_whether_it_is_a_shadow() -> None:
    assert parse_policies(NAMED) == (
        Policy("default", parse_limits("1/5s")),
        Policy("search", parse_limits("20/1m, 500/1h", "search")),
        Policy("strict", parse_limits("5/1m", "strict"), shadow=True),
    )
    assert [limit.name for limit in parse_policies(NAMED)[1].limits] == ["search", "search-2"]


def test_the_default_may_be_a_shadow_and_unnamed_limits_stand_anywhere() -> None:
    assert parse_policies("shadow:default=1/5s")[0].shadow
    assert [policy.name for policy in parse_policies("search=1/1m; 1/5s")] == ["search", "default"]


WRONG = {
    "search=1/5s": "no policy 'default'",
    "1/5s; default=2/5s": "'default' is there twice",
    "1/5s; a=1/5s; a=1/5s": "'a' is there twice",
    "1/5s; shadow:a=1/5s; a=1/5s": "'a' is there twice",
    "1/5s; A=1/5s": "'A' is no name",
    "1/5s; a b=1/5s": "'a b' is no name",
    "1/5s; =1/5s": "'' is no name",
    "1/5s; shadow:=1/5s": "'' is no name",
    "1/5s; shadow: a=1/5s": "' a' is no name",
    "1/5s; a-2=1/5s": "'a-2' is no name",  # so that no second limit has another policy's name
    f"1/5s; {'a' * 33}=1/5s": "is no name",
    "1/5s; a=": "is not like 1/5s",
    "1/5s; ": "is empty",
    "1/5s; a=b=1/5s": "'a=b' is no name",
    "1/5s; " + "; ".join(f"p{n}=1/5s" for n in range(MAX_POLICIES)): f"at most {MAX_POLICIES} policies",
    "a=" + ",".join(["1/5s"] * (MAX_LIMITS + 1)): f"at most {MAX_LIMITS} limits",
}


@pytest.mark.parametrize(("text", "why"), WRONG.items())
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_policies(text)


def test_several_are_chosen_with_the_enforced_ones_first() -> None:
    policies = Policies(parse_policies(NAMED))
    assert policies.default is policies.named("default")
    applied = policies.named("strict,search")
    assert [policy.name for policy in applied.policies] == ["search", "strict"]
    assert [policy.name for policy in applied.shadows] == ["strict"]
    assert [limit.name for limit in applied.limits] == ["search", "search-2"]
    assert policies.named("strict,search") is applied


@pytest.mark.parametrize("names", ["", "other", "search,", "search,search", "Search", "search strict", "shadow:strict"])
def test_what_is_not_there_is_refused(names: str) -> None:
    with pytest.raises(UnknownPolicy):
        Policies(parse_policies(NAMED)).named(names)


def test_one_call_is_judged_by_a_few_policies() -> None:
    names = [f"p{number}" for number in range(MAX_APPLIED)]
    policies = Policies(parse_policies("1/5s;" + ";".join(f"{name}=1/5s" for name in names)))
    assert len(policies.named(",".join(names)).policies) == MAX_APPLIED
    with pytest.raises(UnknownPolicy):
        policies.named(",".join(["default", *names]))


def test_unknown_names_are_not_remembered() -> None:
    """Whoever asks by the name of a policy that is not there must not fill the memory."""
    policies = Policies(parse_policies(NAMED))
    remembered = len(policies._spelled)
    for number in range(1_000):
        with pytest.raises(UnknownPolicy):
            policies.named(f"name{number}")
    assert len(policies._spelled) == remembered


def test_a_combination_is_one_whatever_was_asked_for_before() -> None:
    """What is kept of each token is kept with it: a new one for each call would check every signature again."""
    names = [f"p{number}" for number in range(8)]
    policies = Policies(parse_policies("1/5s;" + ";".join(f"{name}=1/5s" for name in names)))
    for order in permutations(names, MAX_APPLIED):
        policies.named(",".join(order))
    assert policies.named("default,p1") is policies.named("default,p1") is policies.named("p1,default")
    assert len(policies._spelled) <= 256
    assert len(policies._combined) <= 72  # of four among eight 70, `default`, and the one from above
