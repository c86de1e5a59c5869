"""Locks that survive no process, and commands that run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from held_folders import held

from cwrgp.jobs import Job, holder, locked, run_jobs


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        who = f"process {process.pid} on {os.uname().nodename}"
        assert holder(tmp_path) == who
        with (
            pytest.raises(ValueError, match=f"{tmp_path} is worked on by {who}"),
            locked(tmp_path),
        ):
            raise AssertionError
        process.kill()  # -9
        process.wait()
        assert holder(tmp_path) is None
        with locked(tmp_path):
            pass


LOOK = """
import sys
from pathlib import Path
from cwrgp.jobs import holder
print("looking", flush=True)
while True:
    holder(Path(sys.argv[1]))
"""


def test_looking_at_a_lock_hinders_nobody(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with locked(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    looking = subprocess.Popen(
        [sys.executable, "-c", LOOK, str(tmp_path / "new")], stdout=subprocess.PIPE, text=True
    )
    assert looking.stdout is not None and looking.stdout.readline() == "looking\n"
    try:
        for _ in range(50):
            with locked(tmp_path / "new"):
                pass
    finally:
        looking.kill()
        looking.wait()


def job(folder: Path, name: str, program: str) -> Job:
    return Job(name, [sys.executable, "-c", program], folder / f"{name}.txt")


def test_jobs_run_side_by_side_and_keep_their_output(tmp_path: Path) -> None:
    meet = (
        "import sys, time; from pathlib import Path; me, other = map(Path, ({0!r}, {1!r}));"
        "me.touch(); end = time.monotonic() + 30\n"
        "while not other.exists() and time.monotonic() < end: time.sleep(.01)\n"
        "print('met', other.exists()); sys.exit(3)"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [job(tmp_path, "one", meet.format(a, b)), job(tmp_path, "two", meet.format(b, a))]
    jobs.append(job(tmp_path, "three", "print('third')"))
    ended = []
    codes = run_jobs(jobs, at_once=2, ended=lambda j, code, seconds: ended.append((j.name, code)))
    assert codes == {"one": 3, "two": 3, "three": 0} and dict(ended) == codes
    assert (tmp_path / "one.txt").read_text() == "met True\n"
    run_jobs(jobs[2:], at_once=1)
    assert (tmp_path / "three.txt").read_text() == "third\nthird\n"


def test_each_job_has_its_own_gpus(tmp_path: Path) -> None:
    show = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(.5)"
    jobs = [job(tmp_path, str(n), show) for n in range(3)]
    run_jobs(jobs, at_once=2, gpus=["4", "5", "6", "7"], gpus_each=2)
    seen = [(tmp_path / f"{n}.txt").read_text().strip() for n in range(3)]
    assert seen[:2] == ["4,5", "6,7"] and seen[2] in seen[:2]
    with pytest.raises(ValueError, match="3 jobs at once with 2 GPUs each need 6 GPUs; .* shows 4"):
        run_jobs(jobs, at_once=3, gpus=["4", "5", "6", "7"], gpus_each=2)


def test_a_signal_stops_those_that_run_and_starts_no_other(tmp_path: Path) -> None:
    wait = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(75));"
        f"open({str(tmp_path / 'up')!r}, 'w'); time.sleep(60)"
    )
    jobs = [job(tmp_path, name, wait) for name in ("first", "second")]

    def tell() -> None:
        while not (tmp_path / "up").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    assert run_jobs(jobs, at_once=1) == {"first": 75}
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
