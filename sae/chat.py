"""Chat models that the user brings: an OpenAI-compatible endpoint, or a model loaded here. Nothing is called unasked.

An *ask* is any function from messages (``[{"role": ..., "content": ...}]``) to the answer's text.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from interp.errors import InputError, ModelError, StoreError
from interp.tokens import Tokens

__all__ = ["Ask", "Messages", "chat_endpoint", "chat_model"]

Messages = Sequence[Mapping[str, str]]
Ask = Callable[[Messages], str]
_LIMIT = 1 << 20
_LOCAL = ("127.0.0.1", "localhost", "::1")


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirects: a key must not travel to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def chat_endpoint(
    url: str,
    *,
    model: str,
    key: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 200,
    timeout: float = 60.0,
    retries: int = 2,
) -> Ask:
    """An ask that posts to an OpenAI-compatible server.

    Parameters
    ----------
    url
        Up to and without ``/chat/completions``, for instance ``"http://localhost:8000/v1"``.
    model
        As the server calls it.
    key
        Sent as bearer token; never read from the environment, never written anywhere.
    timeout, retries
        Seconds a request, and further tries after a busy (429), failing (5xx) or silent server.

    Raises
    ------
    InputError
        The address is not http or https.
    StoreError
        When asked: the server cannot be reached, refuses, or answers something else; the message says what.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is no address of a server: http://host:port/v1 or https://...")
    handlers: list[Any] = [_Stay()]
    if parts.hostname in _LOCAL:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    address = url.rstrip("/") + "/chat/completions"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def ask(messages: Messages) -> str:
        body = {"model": model, "messages": [dict(m) for m in messages], "temperature": temperature}
        data = json.dumps(body | {"max_tokens": max_tokens}).encode("utf-8")
        for attempt in range(retries + 1):
            request = urllib.request.Request(address, data=data, headers=headers, method="POST")
            try:
                with opener.open(request, timeout=timeout) as response:
                    return _content(response.read(_LIMIT + 1), address)
            except urllib.error.HTTPError as error:
                busy = error.code == 429 or error.code >= 500
                said = error.read(300).decode("utf-8", errors="replace")
                why = f"{address} answered {error.code} {error.reason}: {said}"
            except (urllib.error.URLError, TimeoutError, OSError) as error:
                busy, why = True, f"{address} cannot be reached: {getattr(error, 'reason', error)}"
            if not busy or attempt == retries:
                raise StoreError(why)
            time.sleep(min(8.0, 0.5 * 2**attempt))
        raise AssertionError("a loop of at least one round returns or raises")

    return ask


def _content(raw: bytes, address: str) -> str:
    try:
        if len(raw) > _LIMIT:
            raise ValueError(f"more than {_LIMIT} bytes")
        content = json.loads(raw)["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise ValueError(f"content is a {type(content).__name__}")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{address} did not answer as a chat server: {error}") from error
    return content


def chat_model(model: Any, *, max_new_tokens: int = 80) -> Ask:
    """An ask that a model of the toolkit answers, greedily, in its tokenizer's chat format if it has one.

    Raises
    ------
    ModelError
        The model has no tokenizer.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ModelError(f"{model.name} came without a tokenizer: it cannot read a question")

    def ask(messages: Messages) -> str:
        if getattr(tokenizer, "chat_template", None):
            text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer("\n\n".join(m["content"] for m in messages) + "\n")["input_ids"]
        made = model.generate(Tokens.of([ids]), max_new_tokens=max_new_tokens)
        return tokenizer.decode(made.ids[0, len(ids) :].tolist(), skip_special_tokens=True)

    return ask
