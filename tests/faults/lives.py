"""Kill a process at every step that it takes in the folder of a store, run the same again, and look at what is there then.

Other arguments than ``kill`` disturb lives in other ways. With ``starve``, the disk is full after a number of pages, which a small tmpfs
is; that takes root.

Run as a program in a process of its own, which starts no thread before it forks, as its environment tells it not to: of every life one
process goes undisturbed and counts its steps; for each of them another process is killed there, and a third does the same to the end. One
line of JSON is printed a life::

    {"life": …, "steps": [what each was], "different": {place of the step: what is not as in the undisturbed one}}

A step is what changes the folder: a file that is opened to be written, half written, renamed or removed, a folder that is made or
removed. Killed before a step is killed after the one before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "plugin" / "configs"
TIMES = {"seconds", "fit_seconds", "gpu_seconds", "processor_seconds", "peak_memory", "working_memory", "written"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
AT_ONCE = 2

Life = Callable[[list[Any], Path], None]


def counted(folder: Path, kill_at: int | None = None) -> list[str]:
    """From now on, the steps that this process takes in a folder are counted, and it is killed right before one of them."""
    steps: list[str] = []

    def step(what: str, *files: object, half: Path | None = None) -> None:
        steps.append(f"{what} {' '.join(Path(os.fsdecode(file)).name for file in files if isinstance(file, str | bytes | Path))}")
        if len(steps) - 1 == kill_at:
            if half is not None:
                os.truncate(half, half.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and Path(os.fsdecode(path)).absolute().is_relative_to(folder)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING and inside(arguments[0]):
            step("open", arguments[0])
        elif event == "os.mkdir" and Path(arguments[0]).exists():
            return
        elif event in CHANGES and (inside(arguments[0]) or (event != "os.mkdir" and arguments[-1] != -1)):  # a tree is removed by handles
            step(event.removeprefix("os."), *arguments[: 1 + (event == "os.rename")])

    def flushed(fd: Any) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if inside(path) and path.is_file():
            step("write", path, half=path)
        fsync(fd)

    def saved(tensors: Any, path: Any, *rest: Any, **more: Any) -> None:
        save_file(tensors, path, *rest, **more)
        if inside(path):
            step("write", path, half=Path(path))

    import safetensors.torch

    fsync, os.fsync = os.fsync, flushed
    save_file = safetensors.torch.save_file
    safetensors.torch.save_file = saved  # type: ignore[assignment]
    sys.addaudithook(audit)
    return steps


def content(output: Path) -> dict[str, Any]:
    """What a store holds, but for times: equal where everything that was made is equal, and nothing is left over."""
    from harness.store import Store

    store = Store(output / "store")
    records = store.records()
    found: dict[str, Any] = {
        f"record {row['evaluation']}": {key: value for key, value in row.items() if key not in TIMES}
        for row in records.iter_rows(named=True)
    }
    found |= {f"predictions {row['evaluation']}": store.read_predictions(row["predictions"], row["sha256"]).to_dict(as_series=False)
              for row in records.iter_rows(named=True)}  # fmt: skip
    sums = store.units(records["evaluation"])
    found["sums"] = sums.sort(sums.columns).to_dict(as_series=False) if sums.width > 1 else {}
    for known in store.fits():
        found[f"fit {known['fit']}"] = {key: value for key, value in known.items() if key not in TIMES | {"history"}}
        found[f"history {known['fit']}"] = [
            {key: value for key, value in epoch.items() if key not in TIMES} for epoch in store.history(known["fit"])
        ]
    found["failures"] = store.failures()
    written_again = {"fit.json", "history.json"}  # they hold times
    for path in sorted(store.root.rglob("*")):
        if path.is_file() and path.parent.name != "records" and path.name not in written_again:
            found[f"file {path.relative_to(store.root)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_file() and not path.name.endswith((".records.parquet", ".units.parquet")) and path.name not in written_again:
            found[f"file {path.relative_to(store.root)}"] = "there"
        elif path.is_dir() and (path.name != "failures" or any(path.iterdir())):
            found[f"folder {path.relative_to(store.root)}"] = "there"
    return found


def evaluate(jobs: list[Any], output: Path, most: int | None = None) -> int:
    """Do the jobs, or the first evaluations of each; how many evaluations were made."""
    from harness import evaluation
    from harness.store import Store

    made = 0
    for job in jobs:
        entries = [(baseline, arm, wanted[:most]) for baseline, arm, wanted in job.entries]
        outcome = evaluation.run(dataclasses.replace(job, entries=entries), Store(output / "store"))
        assert not outcome.failed, Store(output / "store").failures()
        made += outcome.made
    return made


def gather(output: Path) -> None:
    from harness.store import Store

    Store(output / "store").pack()


def fitted(jobs: list[Any], output: Path) -> None:
    """Training, checkpoints, weights, embeddings, predictions, a record, a pack."""
    evaluate(jobs, output, 1)
    gather(output)


def packed(jobs: list[Any], output: Path) -> None:
    """A second record, that failed before; a pack that is merged with the first."""
    evaluate(jobs, output)
    gather(output)


def forgotten(jobs: list[Any], output: Path) -> None:
    """A record is taken out, also of a pack, and made again."""
    from harness.store import Store

    Store(output / "store").forget([jobs[0].entries[0][2][0][0]])
    evaluate(jobs, output)
    gather(output)


def before_packed(jobs: list[Any], output: Path) -> None:
    """What a life of :func:`packed` begins with beside what was fitted."""
    from harness.store import Store

    Store(output / "store").fail(jobs[0].entries[0][2][1][0], {"error": "it was another time"})


LIVES: list[tuple[Life, Life | None]] = [(fitted, None), (packed, before_packed), (forgotten, None)]


def child(action: Callable[[], object]) -> int:
    """Do something in a forked process; its id."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def asked(action: Callable[[], object], answer: Path) -> Any:
    """What something returns in a forked process."""
    status = os.waitpid(child(lambda: answer.write_bytes(pickle.dumps(action()))), 0)[1]
    assert status == 0, "the undisturbed one failed"
    return pickle.loads(answer.read_bytes())  # what this program has just written


def planned(cache: Path) -> list[Any]:
    from harness import plan, snapshot
    from harness.plan import Sweep

    sweep = Sweep("s", "", {"toy": ["baseline=toy"]}, {"evaluate.support.size": [1, 2]}, ["task=toy", "tracker=none", "trainer.epochs=2"])
    made = plan.build(sweep, extra=[CONFIGS], snapshot_of=lambda node, _: snapshot.take(node, cache))
    return [*made.jobs.values()]


def live(life: Life, prepare: Life | None, jobs: list[Any], before: Path | None, scratch: Path) -> Path:
    """One life undisturbed, and then as often as it has steps; returns the folder of the undisturbed one."""

    def begun(name: str) -> Path:
        folder = scratch / f"{life.__name__}-{name}"
        if before is not None:
            shutil.copytree(before, folder)
        folder.mkdir(exist_ok=True)
        return folder

    undisturbed = begun("undisturbed")
    if prepare:
        assert os.waitpid(child(lambda: prepare(jobs, undisturbed)), 0)[1] == 0
    start = scratch / f"{life.__name__}-start"
    shutil.copytree(undisturbed, start)

    def whole() -> list[str]:
        steps = counted(undisturbed)
        life(jobs, undisturbed)
        return steps

    steps = asked(whole, scratch / "steps")
    expected = asked(lambda: content(undisturbed), scratch / "expected")
    different: dict[int, str] = {}

    def die(place: int, folder: Path) -> None:
        counted(folder, place)
        life(jobs, folder)

    def go_on(place: int, folder: Path) -> None:
        life(jobs, folder)
        found = content(folder)
        changed = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        if changed:
            print(json.dumps([place, changed]), file=sys.stderr)
            os._exit(3)

    waiting, running = [*range(len(steps))], dict[int, tuple[int, Path, bool]]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            place = waiting.pop(0)
            folder = scratch / f"{life.__name__}-{place}"
            shutil.copytree(start, folder)
            running[child(partial(die, place, folder))] = (place, folder, True)
        process, status = os.wait()
        place, folder, dying = running.pop(process)
        if dying:
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                running[child(partial(go_on, place, folder))] = (place, folder, False)
                continue
            different[place] = "it was not killed there"
        elif status:
            different[place] = f"status {os.waitstatus_to_exitcode(status)}"
        shutil.rmtree(folder)
    print(json.dumps({"life": life.__name__, "steps": steps, "different": different}))
    return undisturbed


def starve(jobs: list[Any], scratch: Path) -> None:
    """The whole life on a disk that is full after so many pages, for every number of pages from one to enough; then there is room."""
    undisturbed, disk = scratch / "roomy", scratch / "disk"
    disk.mkdir()

    def whole(output: Path) -> None:
        fitted(jobs, output)
        packed(jobs, output)

    expected = asked(lambda: [whole(undisturbed), content(undisturbed)][1], scratch / "roomy-expected")

    def hungry() -> list[str]:
        """What it said, and what is not as it should be."""
        from harness.errors import RequestError

        try:
            whole(disk)
        except RequestError as error:
            said = [str(error)]
        except AssertionError as error:
            said = [failure["error"] for failure in error.args[0].values()] or ["failed, and does not say why"]
        else:
            said = []
        content(disk)  # raises where predictions that a record names are not what was written
        return said + [f"left: {path.name}" for path in disk.rglob("*") if ".corrupt" in path.name]

    def fed() -> list[str]:
        whole(disk)
        found = content(disk)
        return sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))

    told = []
    for pages in range(1, 200):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", str(disk)], check=True)
        try:
            said = asked(hungry, scratch / "said")
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            told.append({"pages": pages, "said": said, "different": asked(fed, scratch / "different")})
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        if not said:
            break
    print(json.dumps({"life": "starved", "disks": told}))


def at_once(jobs: list[Any], scratch: Path) -> None:
    """Eight processes with one store and the same jobs, beginning at the same time: what was made by each, and what there is then."""
    output = scratch / "output"

    def one() -> list[Any]:
        made = [evaluate(jobs, output, 1), gather(output), evaluate(jobs, output), gather(output)]
        return [made[0], made[2]]

    answers = [scratch / f"made-{number}" for number in range(8)]
    processes = [child(partial(_answer, one, answer)) for answer in answers]
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    made = [pickle.loads(answer.read_bytes()) for answer in answers if answer.is_file()]
    whole = asked(lambda: content(output), scratch / "content")
    alone = asked(
        lambda: [fitted(jobs, scratch / "alone"), packed(jobs, scratch / "alone"), content(scratch / "alone")][2], scratch / "other"
    )
    different = sorted(key for key in whole.keys() | alone.keys() if whole.get(key) != alone.get(key))
    print(json.dumps({"life": "at once", "statuses": statuses, "made": made, "different": different}))


def _answer(action: Callable[[], object], answer: Path) -> None:
    answer.write_bytes(pickle.dumps(action()))


def jumping(jobs: list[Any], scratch: Path) -> None:
    """A clock that jumps days ahead and back between any two looks at it, and every record says it was written before the last."""
    steady, output = scratch / "steady", scratch / "jumping"

    def jump() -> dict[str, Any]:
        from harness import evaluation, failures, progress
        from harness.store import Store

        looks, seconds, nanoseconds = itertools.count(), time.time, time.time_ns
        days = lambda: 86400 * (-1) ** next(looks) * (next(looks) % 7)  # noqa: E731
        time.time = lambda: seconds() + days()
        time.time_ns = lambda: nanoseconds() + 10**9 * days()
        assert progress.time.time is time.time
        evaluation.now = failures.now = lambda: f"{2030 - next(looks):04d}-01-01T00:00:00+00:00"
        made = [evaluate(jobs, output, 1), gather(output), evaluate(jobs, output), gather(output), evaluate(jobs, output)]
        store = Store(output / "store")
        fits, records = store.fits(), store.records()
        spent = [known["seconds"] for known in fits] + [epoch["seconds"] for known in fits for epoch in store.history(known["fit"])]
        spent += [value for name in ("seconds", "fit_seconds", "gpu_seconds") for value in records[name]]
        return {"made": made, "least": min(spent), "looks": next(looks), "content": content(output)}

    expected = asked(lambda: [fitted(jobs, steady), packed(jobs, steady), content(steady)][2], scratch / "steady-content")
    told = asked(jump, scratch / "jumped")
    found = told.pop("content")
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    print(json.dumps({"life": "jumping", "different": different, **told}))


def main(what: str, scratch: Path) -> None:
    jobs = asked(lambda: planned(scratch / "cache"), scratch / "jobs")

    def modules() -> list[str]:
        fitted(jobs, scratch / "warm")
        return sorted(name for name, module in sys.modules.items() if getattr(module, "__spec__", None) and name != "__main__")

    for name in asked(modules, scratch / "modules"):  # imported once, here, and not in every process
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # what is imported is looked through by no child
    if what != "kill":
        {"starve": starve, "at once": at_once, "jump": jumping}[what](jobs, scratch)
        return
    before = None
    for life, prepare in LIVES:
        before = live(life, prepare, jobs, before, scratch)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
