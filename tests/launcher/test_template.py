"""`--format`: what docker users write, against what Go's text/template makes of it (the texts are podman's answers)."""

from __future__ import annotations

import subprocess

import pytest

from launcher.cli.template import Map, Template
from launcher.errors import UfsError
from tests.launcher.containers import Containers

VALUE = {
    "Name": "web",
    "Names": ["a", "b"],
    "Count": 3,
    "Up": True,
    "None": None,
    "Empty": "",
    "Labels": Map({"k": "v", "a.b": "dotted"}),
    "State": {"Status": "running", "Code": 0},
    "Mounts": [{"Source": "/s", "RW": True}, {"Source": "/t", "RW": False}],
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("{{.Name}}:{{ .State.Status }}", "web:running"),
        ("{{.Names}} {{.Up}} {{.None}} {{.State}}", "[a b] true <no value> map[Code:0 Status:running]"),
        ("{{json .Names}} {{json .State}} {{json .Name}}", '["a","b"] {"Status":"running","Code":0} "web"'),
        ("{{range .Names}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $n := .Names}}{{$i}}={{$n}} {{$.Name}};{{end}}", "0=a web;1=b web;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}},{{end}}", "a.b=dotted,k=v,"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range .Names}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{if .Up}}yes{{else}}no{{end}}{{if .Empty}}yes{{else if .Count}}count{{end}}", "yescount"),
        ("{{with .State}}{{.Status}}{{end}}{{with .Empty}}x{{else}}y{{end}}", "runningy"),
        ("{{.Labels.k}} {{index .Labels \"a.b\"}} {{.Labels.nosuch}}", "v dotted <no value>"),
        ("{{index .Names 1}} {{(index .Mounts 0).Source}} {{len .Names}} {{slice .Name 1 2}}", "b /s 2 e"),
        ("{{upper .Name}} {{.Name | upper | lower | title}}", "WEB Web"),
        ("{{join .Names \", \"}} {{split \"a-b\" \"-\"}}", "a, b [a b]"),
        ("{{println .Name .Count}}{{print .Count .Name}}", "web 3\n3web"),
        ("{{printf \"%5d|%-5s|%q|%v\" 3 .Name .Name .Up}}", '    3|web  |"web"|true'),
        ("{{range .Mounts}}{{println .Source .RW}}{{end}}", "/s true\n/t false\n"),
        ("{{and .Up .Name}} {{or .Empty \"d\"}} {{not .Up}}", "web d false"),
        ("{{eq .Count 3 4}} {{lt 1 2}} {{ne .Name \"x\"}}", "true true true"),
        ("a {{- .Name -}} b{{/* a comment */}}", "awebb"),
        ("{{$x := .Name}}{{$x}}{{range .Names}}{{$x = .}}{{end}}{{$x}}", "webb"),
        ("{{`{{raw}}`}} {{\"q\\\"t\\u00e9\"}}", '{{raw}} q"té'),
        ("{{truncate .Name 2}} {{pad .Name 1 1}}.", "we  web ."),
    ],
)  # fmt: skip
def test_rendered(text: str, shown: str) -> None:
    assert Template(text).render(VALUE) == shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{.Name", "has no end"),
        ("{{end}}", "without a beginning"),
        ("{{if .Up}}x", "has no {{end}}"),
        ("{{nosuch .Name}}", "no function 'nosuch'"),
        ("{{.Nosuch}}", "no field .Nosuch; there are Name"),
        ("{{.Name.Deeper}}", "has no field .Deeper"),
        ("{{}}", "nothing to show"),
        ("{{.Name |}}", "nothing to show"),
        ("{{(.Name}}", "has no )"),
        ("{{$x}}", "no variable $x"),
        ("{{range .Count}}{{end}}{{range .Name}}{{end}}", "can't iterate"),
        ("{{index .Names 7}}", "has the index 7"),
        ("{{len 3}}", "it has none"),
        ("{{.Name 3}}", "takes no arguments"),
        ("{{join}}", "cannot be called"),
        ("{{! }}", "unexpected"),
    ],
)
def test_not_understood(text: str, says: str) -> None:
    with pytest.raises(UfsError) as raised:
        Template(text).render(VALUE)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tables_and_rows(ufs: Containers) -> None:
    ufs.out("create", "--name", "one", "-l", "k=v", "IMAGE", "true")
    assert ufs.out("ps", "-a", "--format", "table {{.Names}}\\t{{.State}}") == "NAMES     STATE\none       created"
    assert ufs.out("ps", "-a", "--format", '{{.Label "k"}} {{upper .Names}}') == "v ONE"
    assert ufs.out("ps", "-a", "--format", "table {{upper .Names}}").splitlines()[0] == "NAMES"
    assert '"Names": "one"' in ufs.out("ps", "-a", "--format", "json")
    assert "no field .Nosuch" in ufs.fails("ps", "-a", "--format", "{{.Nosuch}}")
    assert "has no {{end}}" in ufs.fails("inspect", "-f", "{{range .Mounts}}", "one")
    for wrong, says in (("x", "KEY=VALUE"), ("color=red", "no filter 'color'"), ("status=odd", "a status is one of")):
        assert says in ufs.fails("ps", "--filter", wrong)


@pytest.mark.only_root
def test_podman_renders_the_same() -> None:
    """The other engine is Go's own implementation; `podman info` needs no container."""
    theirs = "{{.Host.OS}} {{upper .Host.OS}} {{json .Host.OS}}"
    theirs += '{{if eq .Host.OS "linux"}}{{printf "%-8s|" .Host.OS}}{{end}}'
    shown = subprocess.run(["podman", "info", "-f", theirs], check=True, stdout=subprocess.PIPE, text=True).stdout
    ours = Template(theirs).render({"Host": {"OS": "linux", "CgroupControllers": ["a", "b"]}})
    assert shown.strip() == ours
