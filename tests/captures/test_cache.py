"""A folder of the cache is there whole or not at all."""

import errno
import json
import os
import threading
import time

import pytest

pytest.importorskip("platformdirs")

from staf_nerf.captures.cache import folder_of, kept
from staf_nerf.captures.capture import CaptureError


def write(text, calls=None):
    def make(folder):
        if calls is not None:
            calls.append(folder)
        (folder / "file").write_text(text)
        return {"text": text}

    return make


def test_a_folder_is_filled_once_and_remembers_what_was_said(tmp_path):
    calls, folder = [], folder_of(tmp_path, "scene", [1])
    assert kept(folder, write("a", calls)) == {"text": "a"}
    assert kept(folder, write("b", calls)) == {"text": "a"}
    assert len(calls) == 1
    assert (folder / "file").read_text() == "a"
    assert os.listdir(folder.parent) == [folder.name]


def test_a_folder_that_lost_a_file_or_its_record_is_filled_again(tmp_path):
    folder = folder_of(tmp_path, "scene", [1])
    kept(folder, write("a"))
    (folder / "file").unlink()
    assert kept(folder, write("b")) == {"text": "b"}
    assert (folder / "file").read_text() == "b"
    (folder / "record.json").write_text("")
    assert kept(folder, write("c")) == {"text": "c"}


def test_nothing_is_left_of_what_fails(tmp_path):
    folder = folder_of(tmp_path, "scene", [1])

    def make(target):
        (target / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(folder, make)
    assert os.listdir(folder.parent) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_one_message_with_the_remedy(tmp_path, number):
    def make(target):
        raise OSError(number, os.strerror(number), str(target / "file"))

    folder = folder_of(tmp_path, "scene", [1])
    with pytest.raises(CaptureError, match=os.strerror(number)) as error:
        kept(folder, make)
    assert str(folder.parent) in str(error.value)
    assert "XDG_CACHE_HOME" in str(error.value)


def test_a_cache_that_is_a_file_is_one_message(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(CaptureError, match="cannot be written into"):
        kept(folder_of(tmp_path / "cache", "scene", [1]), write("a"))


def test_of_two_that_fill_a_folder_at_once_the_first_wins_and_both_go_on(tmp_path):
    folder, both = folder_of(tmp_path, "scene", [1]), threading.Barrier(2, timeout=60)
    errors = []

    def run():
        def make(target):
            both.wait()
            return write("same")(target)

        try:
            assert kept(folder, make) == {"text": "same"}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(folder.parent) == [folder.name]
    assert json.loads((folder / "record.json").read_text())["files"] == ["file"]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    folder = folder_of(tmp_path, "scene", [1])
    old, young = (folder.with_name(f".{folder.name}-{name}") for name in ("old", "young"))
    for left in (old, young):
        left.mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    kept(folder, write("a"))
    assert sorted(os.listdir(folder.parent)) == sorted([folder.name, young.name])
