# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line without QEMU: its syntax, help texts, errors and exit status."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import libvirt
import pytest

import virmirror
from support.patience import PATIENCE
from support.plans import PLAN
from virmirror import jobs
from virmirror.cli import main

URI = "test:///default"  # its one domain is 'test', with the id 1
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.rst"
TEST_UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
CREATE = ("-c", URI, "snapshot-create-as")
DELETE = ("-c", URI, "snapshot-delete")


@pytest.fixture
def test_domain():
    """Return the domain of the test driver, kept alive between the commands."""
    conn = libvirt.open(URI)
    dom = conn.lookupByName("test")
    yield dom
    for snap in dom.listAllSnapshots():
        snap.delete()
    conn.close()


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its status, stdout and stderr."""

    def run(*argv):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def spawn(*argv, **options):
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "virmirror", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


# ---- what the arguments mean ------------------------------------------------

SEED = "vda,file=/path1/to/old.migrate,mirror=/path2/to/new.qcow2"


@pytest.mark.parametrize(
    ("argv", "name", "description", "diskspecs"),
    [
        (["test"], None, None, []),
        (["test", "n"], "n", None, []),
        (["test", "n", "d"], "n", "d", []),
        # as in the manual of virsh: the literal --diskspec may be left out ...
        (["test", "n", "d", "vda", "vdb"], "n", "d", ["vda", "vdb"]),
        (["test", "n", "d", "vda", "--diskspec", "vdb", "vdc"], "n", "d", ["vda", "vdb", "vdc"]),
        # ... after all three others only
        (["test", "n", "vda", "vdb"], "n", "vda", ["vdb"]),
        (["test", "n", "--diskspec", "vda", "vdb"], "n", "vdb", ["vda"]),
        (["test", "--diskspec", "vda", "--diskspec", "vdb"], None, None, ["vda", "vdb"]),
        # anywhere
        (["test", "n", "--reuse-external", "--diskspec", SEED], "n", None, [SEED]),
        (["--diskspec", SEED, "--reuse-external", "test", "n"], "n", None, [SEED]),
        (["test", "--diskspec", SEED, "n", "--disk-only", "d"], "n", "d", [SEED]),
        (["--reuse-external", f"--diskspec={SEED}", "test", "--atomic", "n"], "n", None, [SEED]),
        # each with its name
        (["--name", "n", "--domain", "test", "--description", "d", "vda"], "n", "d", ["vda"]),
        (["--name=n", "test", "d", "vda"], "n", "d", ["vda"]),
        # a dash is an option's only in front of a letter, or a name may follow '--'
        (["test", "-n", "-", "--1"], "-n", "-", ["--1"]),
        (["test", "n", "--", "--halt", "--vda"], "n", "--halt", ["--vda"]),
        (["--", "test", "n"], "n", None, []),
        (["test", "--name", "--halt", "--diskspec", "--vda"], "--halt", None, ["--vda"]),
        (["test", "--name=--halt", "--diskspec=-"], "--halt", None, ["-"]),
        # odd ones
        (["test", "n", "d", "/dev/a,,b,file=/x,,y"], "n", "d", ["/dev/a,,b,file=/x,,y"]),
        (["test", "a b", "--diskspec", "<\"'&>,file=/a b=c"], "a b", None, ["<\"'&>,file=/a b=c"]),
        (["test", "--diskspec", "@vda,file=/é"], None, None, ["@vda,file=/é"]),
    ],
)
def test_create_with_arguments_in_any_order_means_what_virsh_means(
    run, argv, name, description, diskspecs
):
    status, out, err = run(*CREATE, "--print-xml", *argv)
    assert (status, err) == (0, "")
    assert out.rstrip() == virmirror.snapshot_xml(name, description, diskspecs).rstrip()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "COMMAND"),
        (["frobnicate", "test"], "invalid choice: 'frobnicate'"),
        (["--snapshot", "snapshot-list", "test"], "--snapshot"),
        (["-c"], "expected one argument"),
        (["-c", "", "snapshot-list", "test"], "the value is empty"),
        (["-c", URI, "--embed", "/x", "snapshot-list", "test"], "not allowed with"),
        (["--embed", "", "snapshot-list", "test"], "the value is empty"),
        ([*CREATE], "required: --domain"),
        ([*CREATE, "test", "n", "--diskspec"], "--diskspec: expected one argument"),
        ([*CREATE, "test", "n", "--diskspec", ""], "--diskspec: the value is empty"),
        ([*CREATE, "test", ""], "--name: the value is empty"),
        ([*CREATE, "test", "n", "d", ""], "--diskspec: the value is empty"),
        ([*CREATE, "test", "n", "--name", "m"], "--name: given twice"),
        ([*CREATE, "test", "n", "--reuse"], "unrecognized option: --reuse"),
        ([*CREATE, "test", "n", "--atomic=yes"], "--atomic: ignored explicit argument 'yes'"),
        ([*CREATE, "test", "--", "--"], "--name: unexpected value: '--'"),
        ([*DELETE, "test"], "--snapshotname or --current is required"),
        ([*DELETE, "test", "n", "--current"], "mutually exclusive"),
        ([*DELETE, "test", "n", "m"], "unexpected argument: 'm'"),
        (["snapshot-dumpxml", "test"], "required: --snapshotname"),
        (["snapshot-list", "test", "-v"], "unexpected argument: '-v'"),
        (["blockpull", "test"], "required: --path"),
        (["blockpull", "test", "vda", "--timeout", "5"], "--wait is required by option --timeout"),
        (["blockpull", "test", "vda", "--verbose"], "--wait is required by option --verbose"),
        (["blockpull", "test", "vda", "--wait", "--timeout", "0"], "--timeout: must not be 0"),
        (["blockpull", "test", "vda", "--bandwidth", "-1"], "--bandwidth: not a whole number"),
        (["prepare-chain", "test", "vda"], "required: --folder"),
        (["migrate", "test"], "required: DISK=FOLDER"),
        (["migrate", "test", "vda"], "not DISK=FOLDER: 'vda'"),
        (["migrate", "test", "vda="], "not DISK=FOLDER: 'vda='"),
        (["migrate", "test", "vda=/a", "vda=/b"], "a disk is given twice"),
        (["migrate", "test", "vda=/a", "--resume"], "--resume goes without DISK=FOLDER"),
        (["migrate", "test", "--resume", "--undo"], "--resume goes without --undo"),
        (["migrate", "test", "--undo", "--forget"], "--undo goes without --forget"),
        (["migrate", "test", "--resume", "--verify"], "--resume goes without --verify"),
        (["migrate", "test", "--resume", "--bandwidth", "5"], "--resume goes without --bandwidth"),
        (["migrate", "test", "--resume", "--dry-run"], "--resume goes without --dry-run"),
        (["migrate", "test", "--undo", "--timeout", "5"], "--undo goes without --timeout"),
        (["migrate", "test", "--forget", "--verbose"], "--forget goes without --verbose"),
        (["migrate", "test", "vda=/a", "--timeout", "0"], "--timeout: must not be 0"),
        (["migrate", "test", "vda=/a", "--pace", "slow"], "invalid choice: 'slow'"),
    ],
)
def test_run_with_wrong_usage_ends_with_2_before_anything_is_opened(run, monkeypatch, argv, told):
    monkeypatch.setattr(libvirt, "open", None)
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert told in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vda"], {"bandwidth": 0, "wait": False, "timeout": None}),
        (["vda", "--bandwidth", "5"], {"bandwidth": 5 << 20}),
        (["vda", "--bandwidth", "5", "--bytes"], {"bandwidth": 5}),
        (["vda", "--base", "/b"], {"base": "/b"}),
        (["vda", "7", "/b"], {"bandwidth": 7 << 20, "base": "/b"}),
        (["--path", "/old.qcow2"], {"disk": "/old.qcow2"}),
        (["vda", "--wait", "--timeout", "9"], {"wait": True, "timeout": 9}),
    ],
)
def test_blockpull_with_options_passes_them_on(run, monkeypatch, arguments, expected):
    called = {}

    def block_pull(dom, disk, base, **options):
        called.update(options, dom=dom.name(), disk=disk, base=base)

    monkeypatch.setattr(virmirror, "block_pull", block_pull)
    status, out, _ = run("-c", URI, "blockpull", "test", *arguments)
    assert status == 0
    assert out == ("Pull complete\n" if "--wait" in arguments else "Block Pull started\n")
    assert called.items() >= expected.items()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vda=/a"], {"disks": {"vda": "/a"}, "bandwidth": 0, "collapse": "auto"}),
        (["vda=/a", "vdb=/b=c"], {"disks": {"vda": "/a", "vdb": "/b=c"}}),
        (["vda=/a", "--bandwidth", "5"], {"bandwidth": 5 << 20}),
        (["vda=/a", "--bandwidth", "5", "--bytes"], {"bandwidth": 5}),
        (["vda=/a", "--collapse", "pull", "--remove-source", "--verify"],
         {"collapse": "pull", "remove_source": True, "verify": True}),
        (["vda=/a", "--name", "n", "--pace", "full"], {"name": "n", "pace": "full"}),
    ],
)  # fmt: skip
def test_migrate_with_options_passes_them_on(run, monkeypatch, arguments, expected):
    called = {}

    def plan(dom, disks, **options):
        called.update(options, disks=disks)
        return PLAN

    monkeypatch.setattr(virmirror, "plan", plan)
    status, out, _ = run("-c", URI, "migrate", "test", *arguments, "--dry-run", "--json")
    assert status == 0
    assert virmirror.Plan.from_json(out) == PLAN
    assert called.items() >= expected.items()


def test_migrate_dry_run_tells_every_file_and_the_notes(run, monkeypatch):
    monkeypatch.setattr(virmirror, "plan", lambda dom, disks, **options: PLAN)
    status, out, _ = run("-c", URI, "migrate", "test", "vda=/path2", "--dry-run")
    assert status == 0
    for words in ("/path1/old.qcow2 -> /path2/old.qcow2 (0.5 MiB)", "note: note", "0.5 MiB"):
        assert words in out


def test_migrate_resume_without_one_is_an_error(run, monkeypatch, tmp_path):
    monkeypatch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path))
    status, _, err = run("-c", URI, "migrate", "test", "--resume")
    assert status == 1
    assert "has no unfinished migration" in err


def test_failed_migration_tells_that_it_was_undone(run, monkeypatch):
    def fail(*args, **options):
        error = virmirror.StorageError("cannot write")
        error.add_note("the migration was undone: the guest is where it was before")
        raise error

    monkeypatch.setattr(virmirror, "plan", fail)
    status, _, err = run("-c", URI, "migrate", "test", "vda=/a")
    assert (status, err) == (
        1,
        "error: cannot write; the migration was undone: the guest is where it was before\n",
    )


# ---- domains and connections ------------------------------------------------


@pytest.mark.parametrize("domain", ["test", "1", TEST_UUID])
def test_find_domain_by_name_id_or_uuid_succeeds(run, domain):
    assert run("-c", URI, "snapshot-list", domain)[0] == 0


@pytest.mark.parametrize("domain", ["nobody", "99", "9" * 30, TEST_UUID[:-1] + "0", "-1", "$(x)"])
def test_find_domain_that_does_not_exist_fails_and_names_it(run, domain):
    status, out, err = run("-c", URI, "snapshot-list", domain)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: failed to get domain '{domain}': ")


@pytest.mark.parametrize("name", ["7", TEST_UUID[:-1] + "0"])
def test_find_domain_whose_name_looks_like_an_id_succeeds(run, test_domain, name):
    xml = test_domain.XMLDesc().replace("<name>test<", f"<name>{name}<")
    dom = test_domain.connect().defineXML(re.sub("<uuid>.*</uuid>", "", xml))
    assert dom.name() == name
    assert run("-c", URI, "snapshot-list", name)[0] == 0
    dom.undefine()


@pytest.mark.parametrize("variable", ["VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI"])
def test_run_without_uri_takes_that_of_the_environment(variable):
    result = spawn("snapshot-list", "test", env={**os.environ, variable: URI})
    assert (result.returncode, result.stderr) == (0, "")


def test_run_with_uri_prefers_it_to_the_environment():
    environment = {**os.environ, "VIRSH_DEFAULT_CONNECT_URI": "nonsense://"}
    assert spawn("-c", URI, "snapshot-list", "test", env=environment).returncode == 0


# ---- snapshots --------------------------------------------------------------


def test_create_list_dump_and_delete_plain_snapshots_work_as_in_virsh(run, test_domain):
    name, description = "Second", "with a description"
    assert run(*CREATE, "test", "first") == (0, "Domain snapshot first created\n", "")
    assert run(*CREATE, "test", name, description)[1] == "Domain snapshot Second created\n"

    _, xml, _ = run("-c", URI, "snapshot-dumpxml", "test", name)
    assert xml.startswith("<domainsnapshot>\n  <name>Second</name>")
    assert f"<description>{description}</description>" in xml

    _, table, _ = run("-c", URI, "snapshot-list", "test")
    time_pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
    assert re.fullmatch(
        r" Name     Creation Time               State     Mirror\n"
        r"-{56}\n"
        rf" first    {time_pattern}   running\n"
        rf" Second   {time_pattern}   running\n",
        table,
    )

    assert run(*DELETE, "test", "--current") == (0, "Domain snapshot Second deleted\n", "")
    assert test_domain.snapshotListNames() == ["first"]
    out = "Domain snapshot first children deleted\n"
    assert run(*DELETE, "test", "first", "--children-only") == (0, out, "")
    assert run(*DELETE, "--snapshotname", "first", "test")[0] == 0
    assert test_domain.snapshotListNames() == []


def test_create_without_name_tells_the_one_that_libvirt_chose(run, test_domain):
    status, out, _ = run(*CREATE, "test")
    assert status == 0
    (name,) = test_domain.snapshotListNames()
    assert out == f"Domain snapshot {name} created\n"


def test_create_with_flags_passes_them_on(run, monkeypatch, snap):
    called = []
    monkeypatch.setattr(
        virmirror, "snapshotCreateXML", lambda dom, xml, flags: called.append(flags) or snap
    )
    flags = ["no-metadata", "halt", "disk-only", "reuse-external", "quiesce", "atomic", "live"]
    assert run(*CREATE, "test", *(f"--{flag}" for flag in [*flags, "halt"]))[0] == 0
    prefix = "VIR_DOMAIN_SNAPSHOT_CREATE_"
    names = ["NO_METADATA", "HALT", "DISK_ONLY", "REUSE_EXT", "QUIESCE", "ATOMIC", "LIVE"]
    assert called == [sum(getattr(libvirt, prefix + name) for name in names)]


def test_create_with_print_xml_changes_nothing(run, test_domain):
    run(*CREATE, "test", "n", "--print-xml", "--halt", "--diskspec", SEED)
    assert test_domain.snapshotListNames() == []
    assert test_domain.isActive()


# ---- errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-c", "test:///none.xml", "snapshot-list", "test"], "'/none.xml'"),
        ([*DELETE, "test", "nothing"], "no domain snapshot with matching name 'nothing'"),
        ([*DELETE, "test", "--current"], "does not have a current snapshot"),
        (["-c", URI, "snapshot-dumpxml", "test", "nothing"], "'nothing'"),
        ([*CREATE, "test", "n", "--diskspec", "vda,mirror=/a,mirror=/b"], "vda,mirror=/a"),
        ([*CREATE, "test", "n", "--diskspec", "vda,colour=red"], "colour"),
        ([*CREATE, "test", "n", "--diskspec", "vda,mirror=a"], "is not absolute"),
        ([*CREATE, "test", "n", "--halt", "--diskspec", SEED], "cannot halt the domain"),
        ([*CREATE, "test", "n", "--no-metadata", "--diskspec", SEED], "needs its metadata"),
        ([*CREATE, "test", "\udcff"], "can't encode character"),
        (["-c", URI, "blockpull", "test", "vdz"], "vdz"),
        (["-c", URI, "prepare-chain", "test", "vdz", "/tmp"], "vdz"),
    ],
)
def test_run_that_fails_tells_so_in_one_line_and_ends_with_1(run, argv, told):
    status, out, err = run(*argv)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--mirror-abort", "--mirror-pivot"], "delete mirror flags are mutually exclusive"),
        (["--children", "--children-only"], "mutually exclusive"),
        (["--mirror-abort"], "is not mirrored"),
        (["--mirror-pivot"], "is not mirrored"),
    ],
)
def test_delete_with_flags_that_do_not_fit_fails(run, test_domain, flags, told):
    test_domain.snapshotCreateXML("<domainsnapshot><name>plain</name></domainsnapshot>")
    status, out, err = run(*DELETE, "test", "plain", *flags)
    assert (status, out) == (1, "")
    assert re.fullmatch(f"error: .*{told}.*\n", err)


def test_run_that_fails_does_not_let_libvirt_print(tmp_path):
    result = spawn("-c", f"test://{tmp_path}/none.xml", "snapshot-list", "x")
    assert result.returncode == 1
    assert not [line for line in result.stderr.splitlines() if line.startswith("libvirt:")]
    result = spawn("-c", URI, "snapshot-dumpxml", "test", "nothing")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_run_in_embedded_host_without_qemu_tells_what_to_install(tmp_path):
    result = spawn("--embed", tmp_path, "snapshot-list", "x", env={**os.environ, "PATH": "/none"})
    assert result.returncode == 1
    assert re.fullmatch("error: .*apt-get install qemu-system-x86.*\n", result.stderr)


def test_run_interrupted_ends_with_130(uri, tmp_path, slow_qemu_img):
    command = [sys.executable, "-m", "virmirror", "-c", uri, "prepare-chain", "guest", "vda"]
    process = subprocess.Popen([*command, tmp_path / "bin"], stderr=subprocess.PIPE, text=True)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with open(children) as file:
            if file.read():
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch("error: interrupted.*\n", err)


def test_blockpull_interrupted_cancels_only_what_it_waits_for(run, monkeypatch):
    cancelled = []

    def block_pull(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(virmirror, "block_pull", block_pull)
    monkeypatch.setattr(
        libvirt.virDomain, "blockJobAbort", lambda dom, disk, flags=0: cancelled.append(disk)
    )
    monkeypatch.setattr(libvirt.virDomain, "blockJobInfo", lambda dom, disk, flags=0: {})
    assert run("-c", URI, "blockpull", "test", "vda") == (130, "", "error: interrupted\n")
    assert cancelled == []
    assert run("-c", URI, "blockpull", "test", "vda", "--wait")[0] == 130
    assert cancelled == ["vda"]


def test_print_to_a_reader_that_is_gone_ends_with_1_silently():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "virmirror", *CREATE, "test", "--print-xml"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


# ---- help -------------------------------------------------------------------


def test_help_names_all_commands(run):
    status, out, _ = run("--help")
    assert status == 0
    commands = ["create-as", "delete", "dumpxml", "list"]
    for command in [
        *(f"snapshot-{name}" for name in commands),
        "blockpull",
        "prepare-chain",
        "copy",
    ]:
        assert f" {command} " in out


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (
            "snapshot-delete",
            [
                "--mirror-abort abort a mirror while removing snapshot",
                "--mirror-pivot pivot to the mirror before removing snapshot",
                "--metadata delete only libvirt metadata, leaving snapshot contents behind",
                "{SNAPSHOTNAME | --current}",
                "[--mirror-abort | --mirror-pivot]",
            ],
        ),
        (
            "snapshot-create-as",
            [
                "[,snapshot=type][,driver=type][,file=name][,mirror=name]",
                "A literal --diskspec must precede each diskspec unless all three of domain, "
                "name, and description are also present",
                "--reuse-external reuse any existing external files",
            ],
        ),
        ("blockpull", ["--bandwidth NUMBER bandwidth limit in MiB/s"]),
    ],
)
def test_help_of_command_has_the_texts_of_virsh(run, monkeypatch, command, texts):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(command, "--help")
    assert status == 0
    for text in texts:
        assert text in " ".join(out.split())


@pytest.mark.parametrize("command", [None, "snapshot-create-as", "snapshot-delete", "blockpull"])
def test_help_and_reference_have_the_same_options(run, command):
    _, out, _ = run(*([command] if command else []), "--help")
    text = DOCUMENTATION.read_text()
    program = f"virmirror {command}" if command else "virmirror"
    _, text = text.split(f".. program:: {program}\n")
    described = " ".join(re.findall(r"^\.\. option:: (.*)", text.split(".. program::")[0], re.M))
    options = set(re.findall(r"^  (?:-\w.*, )?(--[\w-]+)", out, re.M))
    words = {"--domain", "--name", "--description", "--snapshotname", "--path"}
    if command:
        words.add("--help")
    assert set(re.findall(r"--[\w-]+", described)) == options - words


def test_version_is_that_of_the_package():
    assert spawn("--version").stdout == f"virmirror {virmirror.__version__}\n"


# ---- inspect and recover ----------------------------------------------------


def test_inspect_without_a_mirror_says_nothing(run):
    status, out, err = run("-c", URI, "inspect", "test")
    assert (status, out, err) == (0, "Verdict:   nothing: there is no mirrored snapshot\n", "")


def test_recover_without_a_mirror_does_nothing(run):
    status, out, err = run("-c", URI, "recover", "test", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"found": "nothing", "verdict": "nothing", "done": [], "left": []}


def test_recover_with_another_policy_is_a_usage_error(run):
    status, out, err = run("-c", URI, "recover", "test", "--policy", "hope")
    assert (status, out) == (2, "")
    assert "invalid choice: 'hope'" in err


@pytest.fixture
def left(monkeypatch, tmp_path):
    """Return the plan of a migration that was left in 'prepare', of a domain that is gone."""
    monkeypatch.setenv("VIRMIRROR_STATE_DIR", str(tmp_path / "state"))
    plan = dataclasses.replace(PLAN, uri=URI, domain="gone", uuid=str(uuid.uuid4()))
    with contextlib.closing(jobs.Job.open(plan)) as job:
        job.save()
    return plan


@pytest.mark.parametrize("by", ["name", "uuid"])
def test_migrate_forget_of_a_domain_that_is_gone_tells_what_is_left(run, left, tmp_path, by):
    file = tmp_path / "file"
    file.touch()
    with contextlib.closing(jobs.Job.open(left)) as job:
        job.save(phase="copy", created=(jobs.Created.at(str(file)),))
    name = "gone" if by == "name" else left.uuid
    status, out, _ = run("-c", URI, "migrate", name, "--forget")
    assert status == 0
    assert out.splitlines() == [
        "vda: gone (gone)",
        f"left, and not in use by the domain: {file}",
        "Migration forgotten",
    ]
    assert file.exists()
    assert run("-c", URI, "migrate", name, "--forget")[0] == 1


def test_migrate_undo_of_a_domain_that_is_gone_removes_what_was_made(run, left, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with contextlib.closing(jobs.Job.open(left)) as job:
        job.save(created=(jobs.Created.at(str(file)),))
    status, out, _ = run("-c", URI, "migrate", "gone", "--undo")
    assert (status, out) == (0, "Migration undone\n")
    assert not file.exists()


def test_migrate_forget_of_two_domains_of_one_name_asks_for_the_uuid(run, left):
    other = dataclasses.replace(left, uuid=str(uuid.uuid4()))
    with contextlib.closing(jobs.Job.open(other)) as job:
        job.save()
    status, _, err = run("-c", URI, "migrate", "gone", "--forget")
    assert status == 1 and left.uuid in err and other.uuid in err
    assert run("-c", URI, "migrate", left.uuid, "--forget")[0] == 0
    assert run("-c", URI, "migrate", "gone", "--forget")[0] == 0
