"""Hold URLs with secrets, and remove secrets from texts.

A user names a database, a server or a store by a URL, which may contain a password. Code that accepts such a URL wraps
it in a `SecretUrl`: its text has no secret, and only `reveal()` returns what a library needs to connect. Libraries
quote URLs in their errors, so messages and records of such errors go through `redact`, which knows all secrets of this
process: those of each SecretUrl and those in the environment (`remember_environment`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

#: Replacement of a secret.
HIDDEN = "***"

#: Query parameters whose values are shown. All other values are hidden, because the names of tokens are endless.
PLAIN_PARAMETERS = re.compile(
    "application_name|cache|charset|connect_timeout|driver|encoding|mode|pool_size|port|region|sslmode|timeout|tls|"
    "version|workspace",
    re.IGNORECASE,
)
#: Parts of the names of parameters and environment variables whose values are secrets.
_SECRET_WORDS = r"pass|pwd|token|secret|sig(?:nature)?|key|cred|auth|sas"
_PARAMETER_IN_TEXT = re.compile(rf"(?i)(?<=[?&;])([\w.-]{{0,60}}(?:{_SECRET_WORDS})[\w.-]{{0,60}}=)[^&;\s\"'<>#]+")
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:PASSWORD|PASSWD|PASS|TOKEN|SECRET|KEY)$")
_URL_VARIABLE = re.compile(r"(?:^|_)(?:PROXY|URI|URL|STORE)$", re.IGNORECASE)
#: A longer name before the @, without a password, counts as a token.
_LONGEST_USER = 30
#: Shorter parts of a password are not searched for in texts: they would hide half of each message.
_SHORTEST_PART = 4
#: A shorter secret word is hidden only as a whole word.
_SHORT_WORD = 8
#: Minimum length at which the value of a parameter with an innocent name is searched for in other texts.
_LONG_VALUE = 16


class SecretUrl:
    """A URL or path as a user gave it. `str`, `repr` and formats do not contain its secrets."""

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str) -> None:
        self._text, self._shown = text, _shown(text)
        _remember(_secrets(text))

    @classmethod
    def of(cls, url: SecretUrl | str) -> SecretUrl:
        """Return `url` itself, or a SecretUrl of its text."""
        return url if isinstance(url, SecretUrl) else cls(url)

    def reveal(self) -> str:
        """Return the URL as it was given, for the library that connects. Never print or store it."""
        return self._text

    @property
    def is_secret(self) -> bool:
        """Whether the URL contains a secret."""
        return self._shown != self._text

    @property
    def hostname(self) -> str:
        """Host and port, as messages show them; empty where there is none."""
        try:
            return urlsplit(self._shown).netloc.rpartition("@")[2]
        except ValueError:
            return ""

    @property
    def username(self) -> str | None:
        """Login name; None where there is none, or it is a secret."""
        found = re.match(r"[^:/]*://([^:/?#@]+)@", self._shown)
        return None if found is None or found[1] == HIDDEN else unquote(found[1])

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"SecretUrl({self._shown!r})"

    def __format__(self, spec: str) -> str:
        return format(self._shown, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[SecretUrl], tuple[str]]:
        """Pickle the text, so that another process knows the secrets, too."""
        return SecretUrl, (self._text,)


# ---- one URL ---------------------------------------------------------------------------------------------------------

#: A login with a password, up to the very last @. Parsers disagree on where a password with @, / or # ends, so the
#: longest possible one is assumed.
_LOGIN = re.compile(r"(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.-]*)?://+)(?P<user>[^:/?#]*):(?P<password>.*)@", re.DOTALL)
#: The same without a scheme, or with one that lacks a slash: `user:password@host`, `http:/…`.
_BARE_LOGIN = re.compile(
    r"(?P<scheme>)(?!(?:file|sqlite):)(?P<user>[^:/?#]*):(?!//)(?P<password>.*)@", re.DOTALL | re.IGNORECASE
)
#: A name without a password.
_LONE_USER = re.compile(r"(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.-]*)?://+)(?P<user>[^:/?#@]*)(?P<password>)@")


def _login(text: str) -> re.Match[str] | None:
    return _LOGIN.match(text) or _BARE_LOGIN.match(text) or _LONE_USER.match(text)


def _shown(text: str) -> str:
    login = _login(text)
    if login is not None:
        user = HIDDEN if _is_token(login["user"], login["password"]) else login["user"]
        text = f"{login['scheme']}{user}@{text[login.end() :]}"
    if ":/" not in text:  # a path or an address: only parameters named like secrets are hidden
        return _PARAMETER_IN_TEXT.sub(rf"\g<1>{HIDDEN}", text)
    head, mark, fragment = text.partition("#")
    head = re.sub(r"(?<=[?&;])([^=&;]*)=([^&;]*)", _shown_parameter, head) if "?" in head else head
    return head + (f"#{HIDDEN}" if "=" in fragment else mark + fragment)


def _shown_parameter(found: re.Match[str]) -> str:
    name, value = found.groups()
    return found[0] if not value or PLAIN_PARAMETERS.fullmatch(unquote(name)) else f"{name}={HIDDEN}"


def _is_token(user: str, password: str) -> bool:
    """Return whether a login's name is the secret: some services accept a token there, with no or a fixed password."""
    return len(user) > _LONGEST_USER or password in ("x-oauth-basic", "x-token-auth", "x-access-token")


def _secrets(text: str) -> set[str]:
    """Return all secrets of a URL, as any parser may read it."""
    found: set[str] = set()
    login = _login(text)
    if login is not None:
        user, password = login["user"], login["password"]
        found |= {password, *(part for part in re.split(r"[@/?#:&=\s]", password) if len(part) >= _SHORTEST_PART)}
        if password:
            pair = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogatepass")
            found.add(base64.b64encode(pair).decode())
        if _is_token(user, password):
            found.add(user)
    for name, value in re.findall(r"[?&;#]([^=&;#]*)=([^&;#]*)", text):
        secret = re.search(_SECRET_WORDS, unquote(name), re.IGNORECASE) is not None
        if not PLAIN_PARAMETERS.fullmatch(unquote(name)) and (secret or len(value) >= _LONG_VALUE):
            found |= {value, unquote_plus(value)}
    return found


# ---- any text --------------------------------------------------------------------------------------------------------

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None
_lock = threading.Lock()

#: A login in a URL that is no SecretUrl. `host:port/…@` is not a login.
_URL_IN_TEXT = re.compile(
    r"(?<![\w+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?!\[?[\w.-]{1,255}\]?:\d+[/?#])"
    r"(?P<user>[^\s:/?#\"'<>]{0,255}):[^\s\"'<>]*@"
)


def redact(text: str) -> str:
    """Return `text` without passwords and tokens: those known to this process, and anything like them in a URL."""
    with _lock:
        pattern = _compiled()
    if pattern is not None:
        text = pattern.sub(HIDDEN, text)
    text = _URL_IN_TEXT.sub(r"\g<scheme>\g<user>@", text)
    return _PARAMETER_IN_TEXT.sub(rf"\g<1>{HIDDEN}", text)


def remember_environment(variables: Mapping[str, str] | None = None) -> None:
    """Tell `redact` the environment's passwords, keys and tokens, and the secrets in its URLs."""
    for name, value in (os.environ if variables is None else variables).items():
        is_file = os.path.isabs(value) and os.path.exists(value)  # the path of a key file is no secret
        if _SECRET_VARIABLE.search(name) and not is_file:
            _remember({value})
        elif "://" in value or (_URL_VARIABLE.search(name) and "@" in value):
            _remember(_secrets(value))


def forget() -> None:
    """Make `redact` forget all secrets. For tests, each of which has its own secrets."""
    global _pattern
    with _lock:
        _known.clear()
        _pattern = None


def _remember(secrets: set[str]) -> None:
    global _pattern
    found = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST_PART} - {HIDDEN}
    with _lock:
        if not found <= _known:
            _known.update(found)
            _pattern = None


def _forms(secret: str) -> set[str]:
    """Return the secret in all forms that libraries may print: decoded, encoded, within a Python or JSON string."""
    plain = {secret, unquote(secret)}
    encoded = {escape(each, safe="", errors="surrogatepass") for each in plain for escape in (quote, quote_plus)}
    return plain | encoded | {repr(each)[1:-1] for each in plain} | {json.dumps(each)[1:-1] for each in plain}


def _compiled() -> re.Pattern[str] | None:
    """Return the pattern of all known secrets, the longest first. The caller must hold the lock."""
    global _pattern
    if _pattern is None and _known:
        _pattern = re.compile("|".join(map(_matching, sorted(_known, key=lambda text: (-len(text), text)))))
    return _pattern


def _matching(secret: str) -> str:
    word = len(secret) < _SHORT_WORD and secret.isalnum()
    # In a quoted URL, a word may directly follow an escape such as %3A.
    return rf"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{{2}})){re.escape(secret)}(?!\w)" if word else re.escape(secret)
