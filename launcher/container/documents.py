"""What `inspect` shows of a container and of an image: Docker's documents, with Docker's field names."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from launcher.container import health, logs, state
from launcher.container.catalogue import Container
from launcher.container.config import Config, Health
from launcher.container.volumes import Known
from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.resolve import StoredImage
from launcher.image.store import Record, Store
from launcher.sandbox import capabilities
from launcher.sandbox.spec import Volume

_NEVER = "0001-01-01T00:00:00Z"


def of_container(container: Container, seen: state.Seen, *, sizes: bool) -> dict[str, Any]:
    """A container. Of a damaged one there is no more than its id and why."""
    directory = container.directory
    found: dict[str, Any] = {"Id": container.id, "Name": f"/{container.name}", "State": _state(seen)}
    if container.trouble:
        return found
    made = container.config
    known = health.shown(directory, made.health, seen)
    if known is not None:
        found["State"]["Health"] = known
    words = made.argv
    found |= {
        "Created": moment(made.created),
        "Path": words[0],
        "Args": words[1:],
        "Image": f"sha256:{made.image_id}" if made.image_id else "",
        "ImageName": made.image,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": f"{directory}/{logs.NAME}" if made.log.driver != "none" else "",
        "RestartCount": 0 if isinstance(seen, state.Created | state.Dead) else seen.restarts,
        "Driver": "ufs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(made),
        "GraphDriver": {"Name": "ufs", "Data": {"UpperDir": f"{directory}/upper", "WorkDir": f"{directory}/work"}},
        "Mounts": [_mount(volume) for volume in made.volumes],
        "Config": _config(made),
        "NetworkSettings": {"Ports": {}, "IPAddress": "", "Networks": {"host": {}}},
    }
    if sizes:
        from launcher.container.usage import written

        found["SizeRw"] = written(f"{directory}/upper")
    return found


def of_volume(known: Known) -> dict[str, Any]:
    """A volume. UfsError for a damaged one."""
    if known.trouble:
        raise UfsError(f"volume {known.name} is damaged ({known.trouble}); its files are in {known.data}")
    return {
        "CreatedAt": moment(int(known.created)),
        "Driver": "local",
        "Labels": known.labels or None,
        "Mountpoint": known.data,
        "Name": known.name,
        "Options": None,
        "Scope": "local",
    }


def _mount(volume: Volume) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": volume.kind}
    if volume.kind == "volume":
        found |= {"Name": volume.name, "Driver": "local"}
    return found | {
        "Source": volume.source,
        "Destination": volume.target,
        "Mode": ",".join([*(["ro"] if volume.read_only else []), *volume.options]),
        "RW": not volume.read_only,
        "Propagation": "" if volume.kind != "bind" else "rslave" if "rslave" in volume.options else "rprivate",
    }


def of_image(store: Store, record: Record) -> dict[str, Any]:
    """An image of the store, with all names that it has."""
    from launcher.image import typed

    config = StoredImage(store, record, record.name).config
    raw = typed.load(_bytes(store.blob(record.image)), "config")
    raw = raw if isinstance(raw, dict) else {}
    names = [reference.parse(one.name) for one in store.records() if one.image == record.image and one.name]
    layers = [store.layer(digits) for digits in config.diff_ids]
    size = sum(os.path.getsize(layer) for layer in layers if os.path.exists(layer))
    return {
        "Id": f"sha256:{record.image}",
        "RepoTags": [name.familiar for name in names if name.tag],
        "RepoDigests": [f"{name.familiar_name}@{record.manifest.digest}" for name in names],
        "Parent": "",
        "Comment": raw.get("comment") or "",
        "Created": config.created,
        "Author": raw.get("author") or "",
        "Config": raw.get("config") or {},
        "Architecture": config.architecture,
        "Variant": config.platform.variant,
        "Os": config.os,
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {"Name": "ufs", "Data": {"Index": store.index(record.image), "Layers": layers}},
        "RootFS": {"Type": "layers", "Layers": [f"sha256:{digits}" for digits in config.diff_ids]},
        "Metadata": {"LastTagTime": _NEVER},
    }


def _state(seen: state.Seen) -> dict[str, Any]:
    ended = isinstance(seen, state.Exited | state.Restarting)
    return {
        "Status": "created" if isinstance(seen, state.Starting) else state.name(seen),
        "Running": isinstance(seen, state.Alive),
        "Paused": isinstance(seen, state.Paused),
        "Restarting": isinstance(seen, state.Restarting),
        "OOMKilled": False,
        "Dead": isinstance(seen, state.Dead),
        "Pid": seen.pid if isinstance(seen, state.Running | state.Paused) else 0,
        "ExitCode": seen.status if isinstance(seen, state.Exited | state.Restarting) else 0,
        "Error": _reason(seen),
        "StartedAt": moment(_started(seen)),
        "FinishedAt": moment(seen.at if ended else 0),
    }


def _started(seen: state.Seen) -> float:
    if isinstance(seen, state.Exited | state.Restarting):
        return seen.started
    return seen.at if isinstance(seen, state.Running | state.Paused) else 0


def _reason(seen: state.Seen) -> str:
    if isinstance(seen, state.Dead):
        return seen.reason
    return seen.error or "" if isinstance(seen, state.Exited | state.Restarting) else ""


def _host_config(made: Config) -> dict[str, Any]:
    names = {number: name for name, number in capabilities.NUMBERS.items()}
    kept = frozenset(made.capabilities)
    return {
        "Binds": [
            f"{one.name or one.source}:{one.target}:{'ro' if one.read_only else 'rw'}"
            for one in made.volumes
            if one.kind != "tmpfs" and not one.anonymous
        ]
        or None,
        "Tmpfs": {one.target: ",".join(one.options) for one in made.volumes if one.kind == "tmpfs"} or None,
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": made.log.driver,
            "Config": {"max-size": str(made.log.max_size), "max-file": str(made.log.max_file)},
        },
        "NetworkMode": "host",
        "PortBindings": {},
        "RestartPolicy": {"Name": made.restart.name, "MaximumRetryCount": made.restart.maximum},
        "AutoRemove": made.remove,
        "VolumeDriver": "",
        "VolumesFrom": made.volumes_from or None,
        "CapAdd": [f"CAP_{names[number]}" for number in sorted(kept - capabilities.DEFAULT)] or None,
        "CapDrop": [f"CAP_{names[number]}" for number in sorted(capabilities.DEFAULT - kept)] or None,
        "CgroupnsMode": "private",
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "Privileged": False,
        "ReadonlyRootfs": made.read_only,
        "Init": made.init,
    }


def _config(made: Config) -> dict[str, Any]:
    begins = len(made.entrypoint)
    return {
        "Hostname": made.hostname,
        "Domainname": "",
        "User": made.user,
        "AttachStdin": made.interactive and not made.detached,
        "AttachStdout": not made.detached,
        "AttachStderr": not made.detached,
        "Tty": made.terminal,
        "OpenStdin": made.interactive,
        "StdinOnce": made.interactive and not made.detached,
        "Env": [f"{key}={value}" for key, value in made.environment.items()],
        "Cmd": made.argv[begins:] or None,
        "Image": made.image,
        "Volumes": {place: {} for place in [*made.directories, *(one.target for one in made.volumes if one.anonymous)]}
        or None,
        "WorkingDir": made.working_directory,
        "Entrypoint": made.entrypoint or None,
        "OnBuild": None,
        "Labels": made.labels,
        **({"Healthcheck": _healthcheck(made.health)} if made.health else {}),
        "StopSignal": made.stop_signal or "SIGTERM",
        "StopTimeout": made.stop_timeout,
    }


def _healthcheck(check: Health) -> dict[str, Any]:
    """Times in nanoseconds."""
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    return {"Test": check.test, **{key: round(time * 10**9) for key, time in times.items()}, "Retries": check.retries}


def moment(seconds: float) -> str:
    """RFC 3339, as Docker has it."""
    if not seconds:
        return _NEVER
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
