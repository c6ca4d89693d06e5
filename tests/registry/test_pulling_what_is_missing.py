"""`ufs-run`, `ufs create` and `ufs mount` get an image that the store lacks from its registry, as --pull says."""

from __future__ import annotations

import pytest

from tests.registry.conftest import configure
from tests.registry.proxy import Proxy
from tests.support.users import User


def test_a_fresh_store_runs_what_a_registry_has(plainly: User, registry: str) -> None:
    done = plainly.run(["ufs-run", "--rm", f"{registry}/box:1", "echo", "hi"], check=True)
    assert done.stdout == "hi\n"
    assert "Download complete" in done.stderr
    again = plainly.run(["ufs-run", "--rm", f"{registry}/box:1", "echo", "hi"], check=True)
    assert again.stderr.count("\n") <= done.stderr.count("\n") - 1


@pytest.mark.only_root
def test_mount_and_create_pull_as_well(root_user: User, registry: str) -> None:
    configure(root_user, f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    target = root_user.temp / "mounted"
    target.mkdir()
    root_user.run(["ufs", "mount", f"{registry}/tricky:gzip", target], check=True)
    root_user.run(["ufs", "umount", target], check=True)
    created = root_user.run(["ufs", "create", f"{registry}/box:1", "true"], check=True)
    root_user.run(["ufs", "rm", created.stdout.strip()], check=True)


@pytest.mark.only_root
def test_when_it_is_asked_for(root_user: User, proxy: Proxy) -> None:
    configure(root_user, f'[[registry]]\nlocation = "{proxy.host}"\ninsecure = true\n')
    run = ["ufs-run", "--rm", "--pull"]
    name = f"{proxy.host}/box:1"
    never = root_user.run([*run, "never", name, "true"])
    assert never.returncode == 125
    assert not proxy.seen
    root_user.run([*run, "missing", name, "true"], check=True)
    proxy.seen.clear()
    root_user.run([*run, "missing", name, "true"], check=True)
    assert not proxy.seen
    root_user.run([*run, "always", name, "true"], check=True)
    assert proxy.requests("HEAD", "manifests")


@pytest.mark.only_root
def test_what_no_registry_has_is_one_line_with_both_reasons(root_user: User, registry: str) -> None:
    configure(root_user, f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    done = root_user.run(["ufs-run", f"{registry}/nope:1", "true"])
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert f"no image '{registry}/nope:1'" in done.stderr
    assert "pulling it failed" in done.stderr


@pytest.mark.only_root
def test_paths_and_what_is_no_name_ask_nobody(root_user: User) -> None:
    for name in ("./nope", "/nope", "Not A Name", "docker://alpine"):
        done = root_user.run(["ufs-run", name, "true"])
        assert done.returncode == 125
        assert "pulling" not in done.stderr
