"""Processes as `supervise` starts, follows and ends them: tiny commands, each of which ends as a training may."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptconv.errors import CkptconvError, EnvironmentMissingError, TrainingError, UsageError
from ckptconv.mmdetection.verify.run import supervisor as supervisor
from ckptconv.mmdetection.verify.run import worker
from ckptconv.mmdetection.verify.run.events import Event
from ckptconv.mmdetection.verify.run.files import Job, Run, RunResult
from ckptconv.mmdetection.verify.run.supervisor import Stopped, locked, supervise

pytestmark = pytest.mark.mmdet

BEGIN = """
import json, os, signal, sys, time
def leave(name, **body):
    with open(name, "w") as file:
        json.dump(body, file)
def tell(i, **body):
    with open("events.jsonl", "a") as file:
        file.write(json.dumps({"event": "step", "iteration": i, **body}) + "\\n")
"""
DONE = 'leave("result.json", iterations=3)'
SLEEPS = "time.sleep(30)"
WAITS = f"tell(1, pid=os.getpid())\nwhile not os.path.exists('go'): time.sleep(0.01)\n{DONE}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A run's folder, in which its processes are started."""
    folder = tmp_path / "seed0"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(supervisor, "_PAUSE", 0.02)
    return folder


def run(
    folder: Path,
    code: str,
    watch: Callable[[Run, Event], None] = lambda *_: None,
    command: list[str] | None = None,
) -> None:
    """Conduct this code, with the lock of the folder above."""
    made = Run("seed0", folder, {}, Job(True, 0, "none", False), "trained")
    with locked(folder.parent) as lock:
        supervise(made, command or [sys.executable, "-S", "-c", BEGIN + code], lock, watch)


def alive(pid: int) -> bool:
    """Whether a process runs; what has ended and nobody has asked for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def waits_for(condition: Callable[[], bool]) -> bool:
    """A killed process is gone a moment later."""
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.01)
    return False


def free(folder: Path) -> bool:
    try:
        with locked(folder):
            return True
    except UsageError:
        return False


def test_a_run_that_is_done_is_not_started_again(folder):
    (folder / "result.json").write_text("{}")
    run(folder, 'leave("started.json")')
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_a_run_that_leaves_its_result_is_done(folder):
    run(folder, f'print("said"); print("warned", file=sys.stderr); {DONE}')
    assert sorted((folder / "output.log").read_text().split()) == ["said", "warned"]


def test_why_it_failed_the_time_before_is_forgotten(folder):
    (folder / "failure.json").write_text(json.dumps({"kind": "error", "message": "old", "hint": ""}))
    run(folder, f'assert not os.path.exists("failure.json"); {DONE}')
    assert not (folder / "failure.json").exists()


@pytest.mark.parametrize("kind", ["proof", "diverged"])
def test_a_reason_that_is_an_answer_stops_the_run(folder, kind):
    with pytest.raises(Stopped) as stopped:
        run(folder, f'leave("failure.json", kind="{kind}", message="the loss is nan", hint="look"); sys.exit(1)')
    assert str(stopped.value) == "the loss is nan"


def test_memory_that_is_not_enough_is_the_machines_fault(folder):
    with pytest.raises(EnvironmentMissingError) as error:
        run(folder, 'leave("failure.json", kind="memory", message="CUDA out of memory", hint=""); sys.exit(1)')
    assert error.value.message == "seed0 ran out of memory: CUDA out of memory"
    assert error.value.hint.startswith("Use more GPUs, with fewer images each: `gpus`.")


@pytest.mark.parametrize("kind", ["error", "input"])
@pytest.mark.parametrize("hint", ["", "Convert it first."])
def test_any_other_reason_is_a_training_that_failed(folder, kind, hint):
    with pytest.raises(TrainingError) as error:
        run(folder, f'leave("failure.json", kind="{kind}", message="KeyError: 3", hint="{hint}"); sys.exit(1)')
    assert error.value.message == "seed0 failed: KeyError: 3"
    assert error.value.hint == (hint or f"See its output: {folder / 'output.log'}")


# a full disk leaves it empty, and a kill leaves half of it
@pytest.mark.parametrize("left", ["", '{"kind": "error", "mess'])
def test_a_reason_that_was_cut_off_is_no_reason_to_break(folder, left):
    with pytest.raises(CkptconvError, match="seed0"):
        run(folder, f"open('failure.json', 'w').write({left!r}); sys.exit(1)")


def test_a_run_that_was_killed_says_by_which_signal(folder):
    with pytest.raises(EnvironmentMissingError) as error:
        run(folder, "os.kill(os.getpid(), signal.SIGKILL)")
    assert error.value.message == "seed0 was killed by signal 9"
    log = folder / "output.log"
    assert error.value.hint == f"The same command resumes from the last checkpoint. See its output: {log}"


def test_a_run_with_a_whole_result_is_done_however_its_processes_ended(folder):
    run(folder, f"{DONE}; sys.exit(6)")
    run(folder, "sys.exit(1)")  # and is not started again


def test_a_line_of_nothing_but_signs_is_not_the_last_word(folder):
    with pytest.raises(EnvironmentMissingError) as error:
        run(folder, 'print("Signal 6 (SIGABRT) received"); print("=" * 54); sys.exit(1)')
    assert error.value.message == "seed0 exited with status 1: Signal 6 (SIGABRT) received"


def test_a_status_is_told_with_the_last_line_of_this_times_output(folder):
    (folder / "output.log").write_text("of the time before\n")
    with pytest.raises(EnvironmentMissingError) as error:
        run(folder, r'os.write(1, b"first\n  the last: \xff \n\n   \n"); sys.exit(3)')
    assert error.value.message == "seed0 exited with status 3: the last: \ufffd"
    with pytest.raises(EnvironmentMissingError) as error:
        run(folder, "sys.exit(4)")
    assert error.value.message == "seed0 exited with status 4"
    assert (folder / "output.log").read_bytes().startswith(b"of the time before\nfirst\n")


def test_an_end_without_a_result_is_no_success(folder):
    with pytest.raises(EnvironmentMissingError, match="seed0 exited with status 0"):
        run(folder, "pass")


def test_a_command_that_is_not_there_is_said_to_be_missing(folder):
    with pytest.raises(EnvironmentMissingError, match="no-such-srun"):
        run(folder, "", command=["no-such-srun", "--nodes=2"])


def test_events_are_told_in_order_and_once_with_their_run(folder):
    seen = []
    code = "\n".join(f"tell({i}); time.sleep({0.05 * (i == 5)})" for i in range(1, 11))
    run(folder, f"{code}\n{DONE}", lambda made, event: seen.append((made.name, event["iteration"])))
    assert seen == [("seed0", i) for i in range(1, 11)]


def test_events_are_told_while_it_runs(folder):
    going = []

    def watch(_: Run, event: Event) -> None:
        going.append(alive(event["pid"]))
        (folder / "go").touch()

    run(folder, WAITS, watch)
    assert going == [True]


def test_events_of_the_time_before_are_not_told_again(folder):
    seen = []
    for first in (1, 3):
        with contextlib.suppress(EnvironmentMissingError):
            run(folder, f"tell({first}); tell({first + 1})", lambda _, event: seen.append(event["iteration"]))
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(("cuda", "shown"), [(False, ""), (True, "0,1")])
def test_a_run_on_the_cpu_sees_no_gpu(tmp_path, monkeypatch, cuda, shown):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(worker, "_run", lambda *_: RunResult(environment={"shown": os.environ["CUDA_VISIBLE_DEVICES"]}))
    Job(True, 0, "none", cuda).save(tmp_path)
    assert worker.main(tmp_path) == 0
    assert RunResult.load(tmp_path).environment == {"shown": shown}


@pytest.mark.parametrize("said", [None, "7"])
def test_threads_are_as_many_as_there_are_cores_if_nobody_said(folder, monkeypatch, said):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    seen = []
    run(folder, f'tell(1, threads=os.environ["OMP_NUM_THREADS"]); {DONE}', lambda _, event: seen.append(event))
    assert seen[0]["threads"] == (said or str(os.cpu_count()))


@pytest.fixture
def typed(tmp_path) -> Iterator[None]:
    """Something stands on this process's standard input."""
    kept = os.dup(0)
    (tmp_path / "typed").write_text("a password")
    with (tmp_path / "typed").open() as file:
        os.dup2(file.fileno(), 0)
    yield
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.usefixtures("typed")
def test_what_is_typed_is_not_for_the_run(folder):
    seen = []
    run(folder, f"tell(1, read=sys.stdin.read()); {DONE}", lambda _, event: seen.append(event["read"]))
    assert seen == [""]


def test_where_nodes_meet_is_read_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    code = f"{BEGIN}leave('result.json', to=sys.argv[1])"
    run(folder, "", command=[sys.executable, "-S", "-c", code, "--rdzv-endpoint=$MASTER_ADDR:$NO_SUCH"])
    assert json.loads((folder / "result.json").read_text())["to"] == "--rdzv-endpoint=10.0.0.1:$NO_SUCH"


def test_a_dollar_in_the_name_of_a_folder_is_a_dollar(folder, monkeypatch):
    monkeypatch.setenv("RUN", "7")
    code = f"{BEGIN}leave('result.json', folder=sys.argv[1])"
    run(folder, "", command=[sys.executable, "-S", "-c", code, "work/$RUN/seed0"])
    assert json.loads((folder / "result.json").read_text())["folder"] == "work/$RUN/seed0"


TWO = f"child = os.fork()\nif child: tell(1, pids=[os.getpid(), child])\n{SLEEPS}"


def test_interrupted_it_stops_the_whole_group_of_the_run(folder):
    pids = []

    def watch(_: Run, event: Event) -> None:
        pids.extend(event["pids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, TWO, watch)
    assert len(pids) == 2
    assert waits_for(lambda: not any(map(alive, pids)))
    assert free(folder.parent)


def test_interrupted_it_stops_what_has_a_session_of_its_own(folder):
    """As torchrun starts its processes."""
    pids = []

    def watch(_: Run, event: Event) -> None:
        pids.extend(event["pids"])
        raise KeyboardInterrupt

    own = f"child = os.fork()\nif child: tell(1, pids=[os.getpid(), child])\nelse: os.setsid()\n{SLEEPS}"
    with pytest.raises(KeyboardInterrupt):
        run(folder, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{own}", watch)
    assert len(pids) == 2
    assert waits_for(lambda: not any(map(alive, pids)))


def test_processes_that_do_not_end_when_asked_are_killed(folder, monkeypatch):
    monkeypatch.setattr(supervisor, "_TIMEOUT", 0.1)
    pids = []

    def watch(_: Run, event: Event) -> None:
        pids.extend(event["pids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{TWO}", watch)
    assert waits_for(lambda: not any(map(alive, pids)))


def test_interrupted_twice_it_still_stops_them(folder):
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # for one that comes late
    pids = []

    def watch(_: Run, event: Event) -> None:
        pids.extend(event["pids"])
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            run(folder, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{TWO}", watch)
        assert waits_for(lambda: not any(map(alive, pids)))
    finally:
        signal.signal(signal.SIGTERM, before)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_what_a_run_leaves_behind_ends_with_it(folder):
    pids = []
    code = f"child = os.fork()\nif not child: {SLEEPS}\ntell(1, pid=child)\n{DONE}"
    run(folder, code, lambda _, event: pids.append(event["pid"]))
    assert len(pids) == 1
    assert waits_for(lambda: not alive(pids[0]))


def test_sigterm_ends_a_call_as_an_interrupt_does_and_means_what_it_meant_afterwards(folder):
    before = signal.getsignal(signal.SIGTERM)
    pids = []

    def watch(_: Run, event: Event) -> None:
        pids.extend(event["pids"])
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(folder, TWO, watch)
    assert waits_for(lambda: not any(map(alive, pids)))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_may_conduct_too(folder):
    errors = []

    def conducted() -> None:
        try:
            run(folder, DONE)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=conducted)
    thread.start()
    thread.join()
    assert errors == []
    assert (folder / "result.json").exists()


def test_a_folder_is_locked_while_its_run_goes_on_and_free_afterwards(folder):
    refused = []

    def watch(_: Run, event: Event) -> None:
        with pytest.raises(UsageError) as error, locked(folder.parent):
            pass
        refused.append((error.value.message, error.value.hint, event["pid"]))

        (folder / "go").touch()

    run(folder, WAITS, watch)
    ((message, hint, pid),) = refused
    assert message == f"another verify-ap is running in {folder.parent}"
    assert hint == f"Wait for it, or stop it: kill -- -{pid}; or give another `work_dir`."
    assert free(folder.parent)


def test_the_processes_of_a_run_hold_the_lock_too(folder):
    held = []

    def watch(_: Run, event: Event) -> None:
        opened = [Path(os.readlink(link)) for link in Path(f"/proc/{event['pid']}/fd").iterdir()]
        held.append(folder.parent / ".lock" in opened)

        (folder / "go").touch()

    run(folder, WAITS, watch)
    assert held == [True]


def test_processes_that_outlive_their_call_keep_the_folder_until_they_end(tmp_path):
    with locked(tmp_path) as lock:
        left = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(30)"], pass_fds=[lock])
    assert not free(tmp_path)
    left.kill()
    left.wait()
    assert free(tmp_path)


def test_processes_that_outlive_torchrun_keep_their_run(folder):
    """They are in a session of their own and have none of its files; the worker's own lock tells of them."""
    code = "import sys, time, pathlib\nfrom ckptconv.mmdetection.verify.run import worker\n"
    code += "with worker._running(pathlib.Path()):\n    print(flush=True)\n    time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        left.stdout.readline()
        with pytest.raises(UsageError) as error:
            run(folder, DONE)
        assert error.value.message == f"processes of an earlier verify-ap are still running in {folder}"
        assert error.value.hint == f"Wait for them, or stop them: kill {left.pid}"
        left.kill()
    run(folder, DONE)
    assert (folder / "result.json").exists()


def test_a_lock_makes_the_folder_that_it_is_for(tmp_path):
    with locked(tmp_path / "work" / "deep"):
        assert (tmp_path / "work" / "deep").is_dir()


def test_a_call_that_breaks_frees_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert free(tmp_path)


def test_a_group_that_has_ended_is_not_named(folder):
    run(folder, DONE)
    with locked(folder.parent):
        with pytest.raises(UsageError) as error, locked(folder.parent):
            pass
        assert error.value.hint == "Wait for it; or give another `work_dir`."
