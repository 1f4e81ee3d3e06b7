"""The runs of a benchmark, one after the other, several at once, or as jobs of a cluster; then the tables.

A run is a unit of work: it is trained and tested by one process, which finds on disk what is done. So the ways to do
the work differ in nothing but who calls `dfl.benchmark.run.complete`.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dfl.benchmark import checks
from dfl.benchmark import run as runs
from dfl.benchmark.spec import Run, Spec, safe
from dfl.benchmark.training import say, write
from dfl.cli import configs
from dfl.errors import UserError, near
from dfl.orphans import alive, end_with
from dfl.runs.claim import Held
from dfl.runs.files import claimed

#: In the environment of a run's process: who started it, and ends it by its own end.
PARENT = "DFL_BENCHMARK"
#: Seconds between two looks at a run that another process does.
POLL = 5.0


def run(
    spec: Spec, words: Sequence[str], jobs: int, slurm: str | None, only: str | None, seed: int, typed: Sequence[str]
) -> Any:
    """Do what is missing, then write the tables; return the content of ``benchmark.json``, None for one run alone.

    Args:
        spec: What there is to do.
        words: Options of ``fit`` and ``test``, as typed; they are added to those of the spec.
        jobs: Runs at once.
        slurm: Settings of a cluster's jobs, ``key=value`` with commas between them.
        only: A run, ``METHOD/SEED``.
        seed: Of the resamples.
        typed: The verb and all words after it, for others to repeat it.

    Raises:
        UserError: If a run failed, after the others are done and the tables of what there is are written.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    spec.runs = [dataclasses.replace(one, options=_beaten(one.options, words)) for one in spec.runs]
    for one in spec.runs:
        checks.options(one)
    hashes = runs.DataHashes()
    if only is not None:
        end_with(int(os.environ.get(PARENT, 0)), signal.SIGTERM)
        one = _named(spec, only)
        runs.complete(spec, one, hashes, _title(one))
        return None
    checks.prepare(spec, hashes)
    for one in spec.runs:  # before any starts: other processes read what is written here
        if one.name:
            runs.fit_words(spec, one)
    if slurm is not None:
        failed = _on_cluster(spec, slurm, hashes, typed)
    elif jobs > 1:
        failed = _at_once(spec, jobs, hashes, typed)
    else:
        failed = _in_turn(spec, hashes)
    spec.runs, every = [one for one in spec.runs if _title(one) not in failed], len(spec.runs)
    content = _tables(spec, seed, typed, hashes) if spec.runs else None
    if failed:
        first, why = next(iter(failed.items()))
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise UserError(f"{len(failed)} of {every} runs failed: {first}: {why}{more}; the same command goes on")
    return content


def _beaten(options: Sequence[str], typed: Sequence[str]) -> tuple[str, ...]:
    """Return flags of a spec and flags that are typed, which beat them."""
    flags = {word.partition("=")[0] for word in typed}
    return (*(word for word in options if word.partition("=")[0] not in flags), *typed)


def _title(one: Run) -> str:
    return f"{one.method}/{one.seed}"


def _named(spec: Spec, only: str) -> Run:
    by_title = {_title(one): one for one in spec.runs}
    if only not in by_title:
        raise UserError(f"--only {only}: no such run" + near(only, [*by_title]))
    return by_title[only]


@rank_zero_only
def _tables(spec: Spec, seed: int, typed: Sequence[str], hashes: runs.DataHashes) -> Any:
    from dfl.benchmark.report import of_spec  # needs scikit-learn and matplotlib

    with claimed(spec.output, inside=True, wait=True):
        return of_spec(spec, seed, "dfl " + " ".join(_of_results(typed)), hashes)


def _in_turn(spec: Spec, hashes: runs.DataHashes) -> dict[str, str]:
    """Do all runs in this process; return why the failed ones did."""
    failed: dict[str, str] = {}
    waiting = [(f"run {i + 1} of {len(spec.runs)}, {_title(one)}", one) for i, one in enumerate(spec.runs)]
    elsewhere = 0  # how many in a row are being done by another process
    while waiting:
        title, one = waiting.pop(0)
        if one.predictions:
            continue
        try:
            runs.complete(spec, one, hashes, title)
            elsewhere = 0
        except Held as error:
            if not elsewhere:
                say(f"{title}: later: {error}")
            waiting.append((title, one))
            elsewhere += 1
            if elsewhere >= len(waiting):
                time.sleep(POLL)
        except Exception as error:  # one run that breaks must not cost the others
            failed[_title(one)] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            say(f"{_title(one)} failed: {failed[_title(one)]}")
            if not isinstance(error, UserError):
                traceback.print_exc()
    return failed


def _todo(spec: Spec, hashes: runs.DataHashes) -> tuple[list[Run], dict[str, str]]:
    """Return the runs that have something to do, and why others cannot be done."""
    todo, failed = [], {}
    for one in spec.runs:
        try:
            if runs.missing(spec, one, hashes):
                todo.append(one)
        except UserError as error:
            failed[_title(one)] = str(error)
            say(f"{_title(one)} failed: {error}")
    return todo, failed


def _command(one: Run, typed: Sequence[str]) -> list[str]:
    """Return the command that does one run."""
    return [sys.executable, "-m", "dfl", *_of_results(typed), f"--only={_title(one)}"]


def _of_results(typed: Sequence[str]) -> list[str]:
    """Return the words without those that say how the work is shared out, which change no result."""
    kept = [word for word in typed if not word.startswith(("--jobs=", "--slurm="))]
    for flag in ("--jobs", "--slurm"):
        if flag in kept:
            del kept[kept.index(flag) : kept.index(flag) + 2]
    return kept


def _at_once(spec: Spec, jobs: int, hashes: runs.DataHashes, typed: Sequence[str]) -> dict[str, str]:
    """Do several runs at once, each in a process of its own; return why the failed ones did."""
    (waiting, failed), running = _todo(spec, hashes), dict[int, tuple[Run, subprocess.Popen[bytes]]]()
    gpus = torch.cuda.device_count()
    try:
        while waiting or running:
            for place in sorted(set(range(jobs)) - running.keys())[: len(waiting)]:
                one = waiting.pop(0)
                say(f"{_title(one)}: begun, {_log(spec, one)}")
                running[place] = one, _started(spec, one, typed, place % gpus if gpus else None)
            for place, (one, process) in list(running.items()):
                try:
                    code = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del running[place]
                say(f"{_title(one)}: {'done' if code == 0 else 'failed'}")
                if code:
                    failed[_title(one)] = _last_line(_log(spec, one))
    finally:
        for _, process in running.values():  # Ctrl-C, SIGTERM: runs go on from their last checkpoint another time
            process.terminate()
        for _, process in running.values():
            process.wait()
    return failed


def _started(spec: Spec, one: Run, typed: Sequence[str], gpu: int | None) -> "subprocess.Popen[bytes]":
    """Start the process of a run, with a GPU of its own."""
    environment, command = os.environ | {PARENT: str(os.getpid())}, _command(one, typed)
    if gpu is not None:
        seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = seen[gpu] if seen else str(gpu)
        command.append("--trainer.devices=1")
    log = _log(spec, one)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as to:
        return subprocess.Popen(command, stdout=to, stderr=subprocess.STDOUT, env=environment)


def _log(spec: Spec, one: Run) -> Path:
    return spec.output / "logs" / f"{safe(one.method)}-s{one.seed}.txt"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] if log.is_file() else []
    return f"{lines[-1].removeprefix('dfl: ')} ({log})" if lines else f"no word in {log}"


def _on_cluster(spec: Spec, slurm: str, hashes: runs.DataHashes, typed: Sequence[str]) -> dict[str, str]:
    """Do each run as a job, and wait; return why the failed ones did. A command that is stopped leaves its jobs be."""
    try:
        import submitit
    except ImportError as absent:
        raise UserError("--slurm needs the package submitit: pip install 'dfl[slurm]'") from absent
    pairs = [word.partition("=") for word in slurm.split(",") if word]
    if any(not sign for _, sign, _ in pairs):
        raise UserError(f"--slurm {slurm}: settings are written key=value, such as partition=gpu,time=600")
    settings = {key.strip(): configs.plain(value, "--slurm") for key, _, value in pairs}
    executor = submitit.AutoExecutor(spec.output / "slurm", cluster=settings.pop("cluster", None))
    plain = {"timeout_min", "mem_gb", "nodes", "gpus_per_node", "cpus_per_task", "tasks_per_node"}
    renamed = {"time": "timeout_min"}
    named = {renamed.get(key, key): value for key, value in settings.items()}
    executor.update_parameters(**{key if key in plain else f"slurm_{key}": value for key, value in named.items()})
    todo, failed = _todo(spec, hashes)
    jobs = {_title(one): job for one in todo if (job := _earlier(spec, one, executor)) is not None}
    new = [one for one in todo if _title(one) not in jobs]
    with executor.batch() if new else nullcontext():
        started = [executor.submit(submitit.helpers.CommandFunction(_command(one, typed))) for one in new]
    for one, job in zip(new, started, strict=True):
        jobs[_title(one)] = job
        write(_job_file(spec, one), json.dumps({"cluster": executor.cluster, "job": job.job_id}))
        say(f"{_title(one)}: job {job.job_id}, {job.paths.stdout}")
    for one in todo:
        job = jobs[_title(one)]
        while one not in new and not _ended(job):
            time.sleep(POLL)
        if (error := job.exception()) is not None:
            failed[_title(one)] = f"{str(error).strip().splitlines()[-1]} ({job.paths.stderr})"
    return failed


def _job_file(spec: Spec, one: Run) -> Path:
    """Return where it is noted which job does a run, or has done it."""
    return spec.output / "slurm" / f"{safe(one.method)}-s{one.seed}.json"


def _earlier(spec: Spec, one: Run, executor: Any) -> Any:
    """Return the job of an earlier command that does a run, pending or running, and say so; None if there is none."""
    import submitit

    file = _job_file(spec, one)
    noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kinds = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
    if noted.get("cluster") not in kinds:
        return None
    job = kinds[noted["cluster"]](executor.folder, noted["job"])
    if _ended(job):
        return None
    say(f"{_title(one)}: job {job.job_id} does it already; if there is no such job, remove {file}")
    return job


def _ended(job: Any) -> bool:
    """Return whether a job of an earlier command has ended; submitit knows local ones of this process alone."""
    import submitit

    if isinstance(job, submitit.LocalJob) and not job.paths.result_pickle.exists():
        return not alive(int(job.job_id))
    return bool(job.done())
