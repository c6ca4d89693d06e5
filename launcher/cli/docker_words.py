"""Options and commands that users of docker and podman write and that are not here yet: what to do instead of each.

Whoever adds an option or a command takes its row away (a test tells). Some values say only what is so anyway, such
as `--network host`: those are `in_force` and accepted, because nothing would be done differently.
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """One option of theirs. `flag`: it takes no value but by "=". `says` completes "NAME: ..."."""

    names: tuple[str, ...]
    flag: bool
    says: str
    in_force: tuple[str, ...]


_TRUE, _FALSE = ("true",), ("false",)

_SCOPE = "containers get no control group of their own; start ufs-run in one: systemd-run --user --scope -p"
_HOST_NETWORK = "the network is the host's, with its addresses and interfaces; leave this out"
_IDS = "the ids come from /etc/subuid and /etc/subgid, else the caller's is the only one; leave this out"
_NO_DEVICE_LIMITS = "rates of devices are not limited; leave this out"
_NO_REGISTRY = "ufs-run fetches nothing; get the image by ufs pull, which has this option, and leave it out here"
_PODS = "there are no pods; containers share the host's network as it is"
_WINDOWS = "this is for Windows; leave it out"

_FLAGS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("--disable-content-trust", "nothing but digests is verified; leave this out", _TRUE),
    ("--env-host", "give each variable with -e NAME", _FALSE),
    ("--http-proxy", "no variable is taken from this environment by itself; give -e http_proxy and its like", _FALSE),
    ("--no-hosts", "/etc/hosts is written by ufs-run; to have another, -v ./hosts:/etc/hosts", _FALSE),
    ("--oom-kill-disable", "there are no memory limits, so nothing is killed for them; leave this out", _FALSE),
    ("--passwd", "the image's /etc/passwd stays as it is; leave this out", _FALSE),
    (
        "--privileged",
        "the command never gets more than its user has on this machine; --cap-add ALL gives all capabilities inside",
        _FALSE,
    ),
    ("-P --publish-all", _HOST_NETWORK + " (a port that is opened inside is open on the host)", _FALSE),
    ("-q --quiet", "nothing is fetched, so there is no progress to hide; leave this out", ("true", "false")),
    ("--read-only-tmpfs", "with --read-only, /tmp, /run and /var/tmp can always be written; leave this out", _TRUE),
    ("--replace", "remove the old container first: ufs rm --force NAME", _FALSE),
    ("--rmi", "remove the image afterwards: ufs rmi IMAGE", _FALSE),
    ("--rootfs", "an unpacked root is shown by ufs-mount -o lowerdir=DIR; to run in it, make an image of it", _FALSE),
    ("--sig-proxy", "signals always reach the command; leave this out", _TRUE),
    ("--tls-verify", _NO_REGISTRY, _TRUE),
    ("--unsetenv-all", "set an empty value with -e NAME=, or unset it: IMAGE env -i COMMAND", _FALSE),
    ("--use-api-socket", "there is no daemon and no socket of one; leave this out", _FALSE),
)

_VALUES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("--add-host", "names are the host's; add a line to a copy of /etc/hosts and give -v ./hosts:/etc/hosts", ()),
    ("--annotation", "nothing would read it; leave it out", ()),
    ("--arch --os --variant", "write --platform OS/ARCH[/VARIANT]", ()),
    ("-a --attach", "standard output and error are always attached; standard input by -i; leave this out", ()),
    ("--authfile", _NO_REGISTRY, ()),
    ("--blkio-weight --blkio-weight-device", f"{_SCOPE} IOWeight=N", ()),
    ("--cgroup-conf", f"{_SCOPE} KEY=VALUE", ()),
    ("--cgroup-parent", "containers stay in the caller's control group: start ufs-run in the one you want", ()),
    ("--cgroupns", "the container has a cgroup namespace of its own", ("private",)),
    ("--cgroups", "containers stay in the caller's control group", ("disabled",)),
    ("--chrootdirs", "only / gets the generated files; leave this out", ()),
    ("--conmon-pidfile", "there is no conmon: `ufs-run ... & echo $!` is the launcher's pid", ()),
    ("--cpu-count --cpu-percent --io-maxbandwidth --io-maxiops --isolation", _WINDOWS, ()),
    ("--cpu-period --cpu-quota --cpus", f"{_SCOPE} CPUQuota=150%  (this is 1.5 CPUs)", ("0", "0.0", "0.000")),
    ("--cpu-rt-period --cpu-rt-runtime", "real-time shares are not limited; leave this out", ("0",)),
    ("-c --cpu-shares", f"{_SCOPE} CPUWeight=N, or use nice: nice -n 10 ufs-run ...", ("0",)),
    ("--cpuset-cpus", "processes stay on the caller's CPUs: taskset -c 0,1 ufs-run ...", ("",)),
    ("--cpuset-mems", "memory comes from the caller's nodes: numactl -m 0 ufs-run ...", ("",)),
    (
        "--device",
        "show the device by -v /dev/NAME:/dev/NAME; its mode and this user's groups decide who may use it",
        (),
    ),
    ("--device-cgroup-rule", "which device may be used is decided by its mode; leave this out", ()),
    ("--device-read-bps --device-read-iops --device-write-bps --device-write-iops", _NO_DEVICE_LIMITS, ()),
    (
        "--dns --dns-option --dns-opt --dns-search",
        "resolv.conf is the host's; to have another, -v ./resolv.conf:/etc/resolv.conf",
        (),
    ),
    ("--domainname", "set a whole name: --hostname NAME.DOMAIN", ()),
    ("--env-merge", "-e 'NAME=VALUE' sets the whole value; the image's is in its config", ()),
    ("--expose", _HOST_NETWORK + " (a port that is opened inside is open on the host)", ()),
    ("--gidmap --uidmap --subgidname --subuidname", _IDS, ()),
    ("--gpus", "show the devices one by one: -v /dev/nvidia0:/dev/nvidia0 and so on, with the driver's libraries", ()),
    ("--group-add", "a user's groups are those of the image's /etc/group: add the user there, or -u USER:GROUP", ()),
    ("--health-on-failure", "a check that fails is only shown, by ufs ps and ufs inspect; leave this out", ("none",)),
    ("--hostuser", "no user of the host is added to the image's; -u takes numbers: -u 1000", ()),
    (
        "--image-volume",
        "a VOLUME of the image is an anonymous volume; --tmpfs there makes it a tmpfs",
        ("anonymous", "bind"),
    ),
    ("--init-ctr", _PODS, ()),
    ("--init-path", "--init has one program, its own; leave this out", ()),
    ("--ip --ip6 --link-local-ip --mac-address --network-alias --link", _HOST_NETWORK, ()),
    ("--ipc", "the container has an IPC namespace and a /dev/shm of its own", ("private",)),
    ("--label-file", "give each one with --label K=V", ()),
    ("-m --memory --memory-reservation", f"{_SCOPE} MemoryMax=2G", ("0",)),
    ("--memory-swap --memory-swappiness --kernel-memory", f"{_SCOPE} MemorySwapMax=1G", ("-1", "0")),
    ("--net --network", "the host's network is the only one (--network host)", ("host",)),
    ("--oom-score-adj", "it is the caller's: choom -n 500 -- ufs-run ...", ()),
    ("--passwd-entry", "the image's /etc/passwd stays as it is; -u takes numbers: -u 1000", ()),
    ("--personality", "it is the caller's: setarch linux32 ufs-run ...", ()),
    ("--pid", "the container has a pid namespace of its own", ("private", "")),
    ("--pidfile", "the launcher's pid stands for the container: ufs-run ... & echo $! > FILE", ()),
    ("--pids-limit", f"{_SCOPE} TasksMax=200", ("-1", "0")),
    ("--pod --pod-id-file", _PODS, ()),
    ("--preserve-fds", "the command gets standard input, output and error only; share files by -v", ("0",)),
    ("-p --publish", _HOST_NETWORK + " (a port that is opened inside is open on the host)", ()),
    ("--requires", "containers do not wait for others: start them one after the other", ()),
    ("--runtime", "ufs-run is the runtime; leave this out", ()),
    ("--sdnotify", "the notify socket of systemd is not passed on; use Type=exec in the unit", ("ignore",)),
    ("--seccomp-policy", "the filter is the same for every image; leave this out", ("default",)),
    ("--secret", "show the file by -v ./secret:/run/secrets/NAME:ro", ()),
    ("--shm-size", "/dev/shm has 64 MiB; for more, --tmpfs /dev/shm:size=1g", ("64m", "65536k")),
    ("--storage-opt", "the size of a container is not limited; leave this out", ()),
    ("--sysctl", "settings of the kernel cannot be changed for a container; leave this out", ()),
    ("--systemd", "a systemd inside gets nothing prepared; leave this out", ("false",)),
    ("--timeout", "end it by timeout(1): timeout 60 ufs-run ...", ("0",)),
    ("--tz", "give -e TZ=Europe/Berlin, or -v /etc/localtime:/etc/localtime:ro", ()),
    ("--ulimit", "limits are the caller's: (ulimit -n 4096; ufs-run ...)", ("host",)),
    ("--umask", "it is 0022: set another inside, IMAGE sh -c 'umask 077; exec COMMAND'", ("0022", "022")),
    ("--unsetenv", "set an empty value with -e NAME=, or unset it: IMAGE env -u NAME COMMAND", ()),
    ("--userns", _IDS, ("",)),
    ("--uts", "the container has a host name of its own; --hostname sets it", ("private", "")),
    ("--volume-driver", "volumes are directories of the store, which is the driver local", ("local",)),
)


def words() -> list[Word]:
    """All of them."""
    flags = [Word(tuple(names.split()), True, says, in_force) for names, says, in_force in _FLAGS]
    return flags + [Word(tuple(names.split()), False, says, in_force) for names, says, in_force in _VALUES]


def find(name: str) -> Word | None:
    """The row that has this name, dashes included."""
    return next((word for word in words() if name in word.names), None)


_BUILD = (
    "images are built by other tools: buildah bud -t NAME . && buildah push NAME oci-archive:NAME.tar, then ufs load"
)
_NO_DAEMON = "there is no daemon, so there is nothing to ask or to set"
_ONE_MACHINE = "ufs runs containers on this machine alone"

COMMANDS = {
    "artifact": "only images are kept; oras or skopeo copy others",
    "auto-update": "ufs pull the new image, and start again",
    "bake": _BUILD,
    "build": _BUILD,
    "builder": _BUILD,
    "buildx": _BUILD,
    "checkpoint": "a running container cannot be kept; what it wrote stays in its layer",
    "compose": "start the services one by one with ufs-run; they share the host's network",
    "config": _ONE_MACHINE,
    "context": _NO_DAEMON,
    "events": _NO_DAEMON + "; ufs ps --all lists containers",
    "farm": _BUILD,
    "generate": "write the unit or file by hand, with the ufs-run command line in it",
    "healthcheck": "the supervisor runs the checks; ufs inspect -f '{{json .State.Health}}' shows what came of them",
    "help": "ufs --help, and ufs COMMAND --help",
    "image": "write ufs images, ufs rmi, ufs load",
    "info": _NO_DAEMON + "; ufs --version, ufs images and ufs ps --all",
    "init": "ufs start makes what it needs",
    "kube": _ONE_MACHINE,
    "machine": "containers run on this machine itself",
    "manifest": "skopeo inspect --raw shows and buildah manifest makes them",
    "network": _HOST_NETWORK,
    "node": _ONE_MACHINE,
    "plugin": _NO_DAEMON,
    "pod": _PODS,
    "quadlet": "write a unit with the ufs-run command line in ExecStart",
    "secret": "show the file by ufs-run -v ./secret:/run/secrets/NAME:ro",
    "service": _ONE_MACHINE,
    "stack": _ONE_MACHINE,
    "swarm": _ONE_MACHINE,
    "system": _NO_DAEMON + "; ufs prune frees what no image needs",
    "trust": "digests are verified, signatures are not",
    "unmount": "write ufs umount DIRECTORY",
    "unshare": "unshare(1) does it: unshare --user --map-root-user --map-auto",
    "untag": "write ufs rmi NAME: an image goes with its last name",
    "version": "write ufs --version",
}
"""Name of a command to what completes "no command NAME: ..."."""
