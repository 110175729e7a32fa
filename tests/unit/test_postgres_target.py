"""What an address of PostgreSQL says."""

import pytest

from models.postgres_target import PostgresTarget, parse_postgres


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (
            "postgres://app:p%40ss@db.example:5433/gate%20house",
            PostgresTarget((("db.example", 5433),), "gate house", "app", "p@ss"),
        ),
        ("postgresql://h/d?sslmode=require", PostgresTarget((("h", 5432),), "d", sslmode="require")),
        ("postgres://[::1]:5433/d", PostgresTarget((("::1", 5433),), "d")),
        ("postgres:///d?host=/run/pg", PostgresTarget((("/run/pg", 5432),), "d")),
        ("postgres://u@:5433/d?host=/run/pg", PostgresTarget((("/run/pg", 5433),), "d", "u")),
        ("postgres:///d?host=a:1,b", PostgresTarget((("a", 1), ("b", 5432)), "d", session="read-write")),
        ("postgres://u@a:1,[::1]:2/d", PostgresTarget((("a", 1), ("::1", 2)), "d", "u", session="read-write")),
        (
            "postgres://a,b/d?target_session_attrs=primary",
            PostgresTarget((("a", 5432), ("b", 5432)), "d", session="primary"),
        ),
        ("postgres://h/d?target_session_attrs=read-write", PostgresTarget((("h", 5432),), "d", session="read-write")),
        ("postgres://h/d?pgbouncer=transaction", PostgresTarget((("h", 5432),), "d", pooled=True)),
        ("postgres://h/d?pgbouncer=session", PostgresTarget((("h", 5432),), "d")),
    ],
)
def test_an_address(text: str, target: PostgresTarget) -> None:
    assert parse_postgres(text) == target


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("redis://h/d", "not a postgres://"),
        ("postgres://h", "no database"),
        ("postgres:///d", "no host"),
        ("postgres://hush:hush/d", "a host is not like"),
        ("postgres://a,/d", "a host is not like"),
        ("postgres://a:0/d", "a host is not like"),
        ("postgres://[hush/d", "not an address"),
        ("postgres://h/d?target_session_attrs=standby", "none of any, read-write, primary"),
        ("postgres://h/d?pgbouncer=statement", "none of transaction, session"),
        ("postgres://h/d?pgbouncer", "none of transaction, session"),
        ("postgres://h/d?password=hush", "of the parameters only"),
    ],
)
def test_what_is_wrong_is_said_without_quoting_it(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_postgres(text)
    assert "hush" not in str(caught.value)


def test_its_repr_tells_no_password() -> None:
    assert "hush" not in repr(parse_postgres("postgres://u:hush@h/d"))


def test_through_pgbouncer_no_statement_is_kept() -> None:
    assert parse_postgres("postgres://h/d?pgbouncer=transaction").settings["statement_cache_size"] == 0
    assert "statement_cache_size" not in parse_postgres("postgres://h/d").settings
