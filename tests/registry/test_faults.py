"""Registries and networks that break: what a pull makes of it, what it says, and what it leaves."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from tests.registry import servers
from tests.registry.conftest import configure
from tests.registry.proxy import Exchange, Fault, Proxy
from tests.registry.servers import Authority
from tests.support.users import User

pytestmark = pytest.mark.only_root

PULL = ["ufs", "pull", "--tls-verify=false"]


def on_blobs(fault: Fault, times: int = 1000) -> Fault:
    """A fault of the first so many requests for each blob that is large enough to be a layer."""

    def only(exchange: Exchange) -> bool:
        return exchange.is_blob and exchange.number <= times and fault(exchange)

    return only


def on_manifests(fault: Fault, times: int = 1000) -> Fault:
    return lambda exchange: (
        exchange.method == "GET" and "/manifests/" in exchange.path and exchange.number <= times and fault(exchange)
    )


def cut_at(count: int) -> Fault:
    return lambda exchange: exchange.pass_on(cut_at=count)


def ignoring_range(exchange: Exchange) -> bool:
    """All of it, whatever was asked for; the first time cut."""
    del exchange.headers["Range"]
    return exchange.pass_on(cut_at=1000 if exchange.number == 1 else None)


PASSING: dict[str, Fault] = {
    "connections closed before an answer": on_blobs(Exchange.cut, 2),
    "bodies cut at once": on_blobs(cut_at(0), 2),
    "bodies cut after a byte": on_blobs(cut_at(1), 2),
    "bodies cut in the middle": on_blobs(cut_at(100), 2),
    "a Range that is ignored": on_blobs(ignoring_range),
    "a busy server": on_blobs(lambda exchange: exchange.answer(429, {"Retry-After": "1"}), 1),
    "a broken server": on_manifests(lambda exchange: exchange.answer(503), 2),
    "a manifest that is cut": on_manifests(cut_at(10), 1),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_asked_again(root_user: User, proxy: Proxy, fault: str) -> None:
    name = f"{proxy.host}/tricky:gzip"
    proxy.faults.append(PASSING[fault])
    root_user.run([*PULL, name], check=True)
    assert root_user.run(["ufs", "images", "-q"], check=True).stdout
    assert not os.listdir(root_user.store / "partial")


def lengthened(exchange: Exchange) -> bool:
    return exchange.pass_on(lambda data: data + bytes(1 << 20))


def other_bytes(exchange: Exchange) -> bool:
    return exchange.pass_on(lambda data: data[:-1] + bytes([data[-1] ^ 1]))


def endless_body(exchange: Exchange) -> bool:
    return exchange.answer(200, {"Content-Type": "application/json"}, b" " * (5 << 20))


def endless_headers(exchange: Exchange) -> bool:
    exchange.handler.send_response(200)
    for number in range(20_000):
        exchange.handler.send_header(f"X-{number}", "x" * 100)
    exchange.handler.end_headers()
    return exchange.cut()


def around(exchange: Exchange) -> bool:
    return exchange.answer(307, {"Location": exchange.path})


def nobody(challenge: str) -> Fault:
    return lambda exchange: exchange.answer(401, {"WWW-Authenticate": challenge})


FAILING: dict[str, tuple[Callable[[str], Fault], str]] = {
    "wrong bytes of a layer": (lambda host: on_blobs(other_bytes), "does not match its digest"),
    "wrong bytes of a manifest": (lambda host: on_manifests(other_bytes), "is not valid JSON"),
    "more bytes than stated": (lambda host: on_blobs(lengthened), "more for layer|instead of"),
    "an endless document": (lambda host: on_manifests(endless_body), "the limit for a document"),
    "endless headers": (lambda host: on_manifests(endless_headers), "cannot be reached"),
    "redirects without end": (lambda host: on_blobs(around), "redirects more than"),
    "401 whatever is sent": (lambda host: nobody('Basic realm="x"'), "to log in: ufs login"),
    "401 without a scheme": (lambda host: nobody("what?"), "to log in: ufs login"),
    "a token server that is not there": (
        lambda host: nobody('Bearer realm="http://127.0.0.1:9/t"'),
        "cannot be reached",
    ),
    "403": (lambda host: on_blobs(lambda exchange: exchange.answer(403)), "answers 403 Forbidden"),
    "a wait of a day": (
        lambda host: on_manifests(lambda exchange: exchange.answer(429, {"Retry-After": "86400"})),
        "429 Too Many Requests",
    ),
    "words that a terminal obeys": (
        lambda host: on_manifests(
            lambda exchange: exchange.answer(400, {}, b'{"errors":[{"code":"X","message":"\\u001b[2Jgone\\nhere"}]}')
        ),
        re.escape("X ?[2Jgone?here"),
    ),
}


@pytest.mark.parametrize("fault", FAILING)
def test_what_cannot_be_is_one_line_and_leaves_nothing(root_user: User, proxy: Proxy, fault: str) -> None:
    make, wanted = FAILING[fault]
    proxy.faults.append(make(proxy.host))
    done = root_user.run([*PULL, "-q", f"{proxy.host}/box:1"])
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"ufs: [^\n]+\n", done.stderr), done.stderr
    assert re.search(wanted, done.stderr), done.stderr
    store = root_user.store
    left = [path for name in ("blobs/sha256", "layers", "images", "tmp") for path in (store / name).glob("*")]
    assert not left
    if "wrong bytes" in fault:
        assert not list((store / "partial").glob("*"))


def test_credentials_do_not_follow_a_redirect(root_user: User, guarded: str, registry: str) -> None:
    """Blobs are said to be elsewhere, as registries in clouds do; there nobody may learn who asks."""
    with Proxy(guarded) as front, Proxy(registry) as elsewhere:
        front.faults.append(
            on_blobs(lambda exchange: exchange.answer(307, {"Location": f"http://{elsewhere.host}{exchange.path}"}))
        )
        login = ["ufs", "login", "--tls-verify=false", "-u", servers.USER, "--password-stdin", front.host]
        root_user.run(login, input=servers.PASSWORD, check=True)
        root_user.run([*PULL, f"{front.host}/box:1"], check=True)
        assert any("authorization" in headers for _, _, headers in front.seen)
        assert elsewhere.seen
        assert not any("authorization" in headers for _, _, headers in elsewhere.seen)


def test_a_registry_with_tls_cannot_send_its_clients_to_plain_http(
    root_user: User, registry: str, authority: Authority
) -> None:
    with Proxy(registry, (authority.server, authority.server_key)) as front:
        configure(root_user, authority.certificate.read_text(), f"certs.d/{front.host}/ca.crt")
        front.faults.append(
            on_blobs(lambda exchange: exchange.answer(307, {"Location": f"http://{registry}{exchange.path}"}))
        )
        done = root_user.run(["ufs", "pull", "-q", f"{front.host}/box:1"])
        assert done.returncode == 1
        assert f"{front.host} redirects from HTTPS to {registry} without; refused" in done.stderr
        front.faults.clear()
        root_user.run(["ufs", "pull", "-q", f"{front.host}/box:1"], check=True)


def test_plain_http_is_spoken_where_it_is_declared_alone(root_user: User, registry: str) -> None:
    done = root_user.run(["ufs", "pull", f"{registry}/box:1"])
    assert done.returncode == 1
    assert f"{registry} does not speak TLS" in done.stderr


def test_a_registry_that_is_not_there(root_user: User) -> None:
    done = root_user.run([*PULL, "127.0.0.1:9/box:1"])
    assert done.returncode == 1
    assert re.fullmatch(r"ufs: 127\.0\.0\.1:9 cannot be reached: [^\n]*\n", done.stderr)
