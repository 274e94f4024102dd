# SPDX-License-Identifier: LGPL-2.1-or-later
"""copy() and checksum(): what they do to files, and what they refuse."""

import os

import pytest

import virmirror

KIB = 1024
MIB = 1024 * KIB
ATTRIBUTE = "user.virmirror.copy"


def write_extents(path, size, extents):
    """Make a file of holes, but for the extents: {offset: bytes}."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in extents.items():
            file.seek(offset)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def extents_of(path):
    """Return where the data of a file are: [(offset, end), ...]."""
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while True:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return found
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            found.append((begin, at))
    finally:
        os.close(fd)


@pytest.fixture
def source(tmp_path):
    """Return a file with data at both ends, in the middle, and holes between them."""
    path = tmp_path / "source"
    extents = {0: b"head" * KIB, 3 * MIB: os.urandom(MIB), 9 * MIB - 5: b"tail!"}
    write_extents(path, 9 * MIB, extents)
    return path


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


@pytest.mark.parametrize("pace", ["auto", "full"])
def test_copy_to_new_file_has_content_and_holes(source, destination, pace):
    source.chmod(0o640)
    report = virmirror.copy(source, destination, pace=pace)
    assert destination.read_bytes() == source.read_bytes()
    assert extents_of(destination) == extents_of(source)
    assert destination.stat().st_mode & 0o7777 == 0o640
    assert (report.source, report.destination) == (str(source), str(destination))
    assert (report.size, report.verified) == (9 * MIB, False)
    assert report.copied == sum(end - begin for begin, end in extents_of(source))
    assert report.method in ("io_uring", "threads", "copy_file_range", "reflink")
    assert report.seconds > 0


def test_copy_reports_the_checksum_of_both_files(source, destination):
    report = virmirror.copy(source, destination, reflink=False)
    assert report.checksum == virmirror.checksum(source) == virmirror.checksum(destination)


def test_checksum_of_zeros_and_of_holes_is_the_same(tmp_path, source):
    full = tmp_path / "full"
    full.write_bytes(source.read_bytes())
    assert extents_of(full) != extents_of(source)
    assert virmirror.checksum(full) == virmirror.checksum(source)


def test_copy_verified_is_verified(source, destination):
    assert virmirror.copy(source, destination, verify=True).verified


def test_copy_onto_existing_file_is_refused(source, destination):
    destination.write_bytes(b"mine")
    with pytest.raises(virmirror.ExistsError):
        virmirror.copy(source, destination)
    assert destination.read_bytes() == b"mine"


def test_copy_with_overwrite_fills_the_same_file(source, destination):
    destination.write_bytes(b"old" * MIB * 5)
    destination.chmod(0o640)
    for path in (source, destination):  # as libvirt gives both to its QEMU's user
        os.chown(path, 12, 34)
    before = destination.stat()
    virmirror.copy(source, destination, overwrite=True)
    after = destination.stat()
    assert destination.read_bytes() == source.read_bytes()
    for name in ("st_ino", "st_mode", "st_uid", "st_gid"):
        assert getattr(after, name) == getattr(before, name)


def test_copy_again_does_nothing(source, destination):
    first = virmirror.copy(source, destination)
    before = destination.stat()
    again = virmirror.copy(source, destination, overwrite=True)
    assert (again.method, again.copied) == ("none", 0)
    assert again.checksum == first.checksum
    assert destination.stat().st_mtime_ns == before.st_mtime_ns


def test_copy_again_after_a_change_copies(source, destination):
    virmirror.copy(source, destination)
    with destination.open("r+b") as file:
        file.write(b"x")
    assert virmirror.copy(source, destination, overwrite=True).copied > 0
    assert destination.read_bytes() == source.read_bytes()


def test_copy_is_marked_complete(source, destination):
    report = virmirror.copy(source, destination, reflink=False)
    fields = os.getxattr(destination, ATTRIBUTE).decode().split()
    assert fields[:2] == ["2", "complete"]
    assert fields[-1] == report.checksum


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"pace": "fast"}, ValueError),
        ({"bandwidth": -1}, ValueError),
        ({"bandwidth": 1.5}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"on_progress": 3}, TypeError),
        ({"other": 1}, TypeError),
    ],
)
def test_copy_with_bad_arguments_creates_nothing(source, destination, arguments, error):
    with pytest.raises(error):
        virmirror.copy(source, destination, **arguments)
    assert not destination.exists()


def test_copy_of_what_is_no_file_is_refused(tmp_path, source, destination):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    link = tmp_path / "link"
    link.symlink_to(source)
    for bad in (fifo, link, tmp_path, "/dev/null"):
        with pytest.raises(virmirror.ImageError):
            virmirror.copy(bad, destination)
        with pytest.raises(virmirror.ImageError):
            virmirror.copy(source, bad, overwrite=True)
        with pytest.raises(virmirror.ImageError):
            virmirror.checksum(bad)
    with pytest.raises(virmirror.NotFoundError):
        virmirror.copy(tmp_path / "none", destination)
    with pytest.raises(virmirror.SpecError):
        virmirror.copy(source, source, overwrite=True)
    assert not destination.exists()


def test_copy_tells_how_far_it_is(source, destination):
    seen = []
    report = virmirror.copy(source, destination, on_progress=seen.append, bandwidth=4 * MIB)
    assert len(seen) >= 2
    assert seen[-1] == (report.copied, report.copied)
    assert [one.current for one in seen] == sorted(one.current for one in seen)


def test_copy_with_progress_that_raises_ends(source, destination):
    def stop(progress):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        virmirror.copy(source, destination, on_progress=stop, bandwidth=MIB // 4)
    assert not destination.exists()


def test_copy_that_takes_too_long_leaves_nothing(source, destination):
    with pytest.raises(virmirror.MirrorTimeoutError) as caught:
        virmirror.copy(source, destination, bandwidth=MIB // 4, timeout=0.3)
    assert not caught.value.partial
    assert not destination.exists()


def test_copy_broken_off_leaves_no_header_and_says_so(source, destination):
    destination.write_bytes(b"header" * MIB)
    with pytest.raises(virmirror.MirrorTimeoutError) as caught:
        virmirror.copy(source, destination, bandwidth=MIB // 4, timeout=0.3, overwrite=True)
    assert caught.value.partial
    assert "incomplete" in str(caught.value)
    assert destination.read_bytes()[: 64 * KIB] == bytes(64 * KIB)
    assert os.getxattr(destination, ATTRIBUTE) == b"2 incomplete"
