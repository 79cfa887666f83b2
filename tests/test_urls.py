"""URLs with secrets: none is shown, written with an error, or in a pickled object's `repr`."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from fuzzing import fuzz, fuzzed
from hypothesis import assume
from hypothesis import strategies as st

from kdtune.errors import Problem
from kdtune.urls import HIDDEN, SecretUrl, forget, redact, remember_environment

#: Characters at which parsers end a password, characters that forms encode, and non-ASCII characters.
ODD = "@/?#:%&=;+ \\'\"<>[]{}|^`~!$*(),.\n\té✓"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://alice:SEKRIT@URI@HOST", "http://alice@HOST"),
        ("http://alice:SEK@RIT/SEKRIT@HOST:5000/x", "http://alice@HOST:5000/x"),
        ("http://alice@corp.org:SEKRIT@HOST", "http://alice@corp.org@HOST"),
        ("postgresql://u:SEKRIT/x@h/db", "postgresql://u@h/db"),
        ("postgresql://u:SEKRIT#x@h/db?sslmode=require", "postgresql://u@h/db?sslmode=require"),
        ("ftp://user:1234/SEKRIT@h/runs", "ftp://user@h/runs"),
        ("http:/alice:SEKRIT@HOST", "http@HOST"),
        ("127.0.0.1:1/?token=SEKRIT", f"127.0.0.1:1/?token={HIDDEN}"),
        ("://u:SEKRIT@HOST", "://u@HOST"),
        ("user:/SEKRIT:x@HOST", "user@HOST"),
        ("alice:SEKRIT@HOST:5000", "alice@HOST:5000"),
        ("http://:SEKRIT@HOST", "http://@HOST"),
        ("https://ghp_SEKRITSEKRITSEKRITSEKRITSEKRIT@HOST/a.git", f"https://{HIDDEN}@HOST/a.git"),
        ("https://SEKRIT:x-oauth-basic@HOST/a.git", f"https://{HIDDEN}@HOST/a.git"),
        ("http://h/?token=SEKRIT&mode=ro&password=SEKRIT", f"http://h/?token={HIDDEN}&mode=ro&password={HIDDEN}"),
        ("https://h/x?X-Amz-Signature=SEKRIT;sig=SEKRIT", f"https://h/x?X-Amz-Signature={HIDDEN};sig={HIDDEN}"),
        ("https://h/x?tok=SEKRIT#access_token=SEKRIT", f"https://h/x?tok={HIDDEN}#{HIDDEN}"),
        ("s3://key:SEK/RIT+SEKRIT@bucket/runs", "s3://key@bucket/runs"),
    ],
)
def test_a_secret_is_not_shown(url: str, shown: str) -> None:
    secret = SecretUrl(url)
    assert (str(secret), f"{secret}", f"{secret:s}") == (shown, shown, shown)
    assert "SEKRIT" not in repr(secret)
    assert secret.is_secret
    assert secret.reveal() == url
    assert pickle.loads(pickle.dumps(secret)).reveal() == url
    assert "SEKRIT" not in redact(f"cannot open {url!r}: no host {url}"), "also in a library's words"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///mlflow/mlflow.db",
        "sqlite:////home/a@b/mlflow.db",
        "http://127.0.0.1:5000",
        "http://me@host:5000/x",
        "s3://bucket/path@v2",
        "HEAD:6379",
        "[::1]:6379",
        "databricks://profile",
        "mysql+pymysql://u@h/db?charset=utf8mb4",
        "runs",
        "/data/a?b#c=d",
        "",
    ],
)
def test_what_has_no_secret_is_shown_whole(url: str) -> None:
    assert str(SecretUrl(url)) == url
    assert not SecretUrl(url).is_secret
    assert redact(url) == url


def test_a_text_loses_what_looks_like_a_secret_in_a_url_nobody_named() -> None:
    text = (
        'push to "https://me:ghp_UNNAMED1@github.com/x.git" of http://host:5000/a@b:c?access_token=UNNAMED2&x=1 failed'
    )
    expected = f'push to "https://me@github.com/x.git" of http://host:5000/a@b:c?access_token={HIDDEN}&x=1 failed'
    assert redact(text) == expected


def test_the_environment_s_secrets_are_known() -> None:
    remember_environment(
        {
            "MLFLOW_TRACKING_PASSWORD": "ENVIRON-1",
            "MLFLOW_TRACKING_TOKEN": "ENVIRON-2",
            "AWS_SECRET_ACCESS_KEY": "ENV/IRON+3",
            "https_proxy": "me:ENVIRON-4@proxy:3128",
            "ANY_DATABASE": "postgresql://me:ENVIRON-5@h",
            "TOKENIZERS_PARALLELISM": "ENVIRON-6",
        }
    )
    text = "ENVIRON-1 ENVIRON-2 ENV/IRON+3 ENV%2FIRON%2B3 ENVIRON-4 ENVIRON-5 ENVIRON-6"
    assert redact(text) == " ".join([HIDDEN] * 6 + ["ENVIRON-6"])


def test_a_problem_never_tells_a_secret() -> None:
    url = SecretUrl("http://alice:OPEN@SESAME@HOST")
    assert "SESAME" not in str(Problem("OPEN@SESAME", f"got {url.reveal()}", "not SESAME"))


def check_password(password: str, form: str) -> None:
    """No part of the password is shown, however it is encoded, and none is left in a text that quotes it."""
    forget()
    assume(not (form.startswith("user") and password.startswith("//")))  # then `user` looks like the scheme
    encoded = quote(password, safe="") if "%" in form else password
    url = form.replace("%", "").replace("PW", encoded)
    secret = SecretUrl(url)
    assert "SEKRIT" not in f"{secret} {secret!r}"
    assert secret.reveal() == url
    for text in (url, repr(url), f"password {password!r} of {url}", quote(url), quote(password, safe="")):
        assert "SEKRIT" not in redact(text), text


#: The password contains SEKRIT; `%` in a form has it encoded.
FORMS = (
    "http://alice:PW@HOST",
    "http://alice:PW@HOST%",
    "postgresql+psycopg2://u:PW@h:5432/db?sslmode=require%",
    "postgresql://u:PW@h/db",
    "ftp://user:PW@127.0.0.1:1/runs",
    "user:PW@127.0.0.1:1",
    "http://HOST/x?token=PW%",
    "http://HOST/x?a=1&X-Amz-Signature=PW%",
)


@fuzzed
def test_no_password_is_shown_whatever_is_in_it(examples: int) -> None:
    around = st.text(st.one_of(st.sampled_from(ODD), st.characters(codec="utf-8")), max_size=6)
    passwords = st.tuples(around, around).map("SEKRIT".join)
    fuzz(check_password, passwords, st.sampled_from(FORMS), examples=examples)


def check_text(text: str) -> None:
    """Nothing is refused, and nothing takes long."""
    forget()
    assert isinstance(redact(text), str)
    assert SecretUrl(text).reveal() == text
    str(SecretUrl(text))


@fuzzed
def test_any_text_is_taken(examples: int) -> None:
    pieces = st.sampled_from(
        ["http://", "a", ":", "@", "/", "?", "&", "token=", "#", "\ud800", "\x00", "%", "x" * 3000]
    )
    fuzz(check_text, st.lists(pieces, max_size=30).map("".join), examples=examples)
