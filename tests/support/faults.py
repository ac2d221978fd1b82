"""A run in parts on hosts that share nothing but a store, while they are killed and cut off.

What a host has besides the store (the model, the corpus) is read and never written, as what an
image brings. Each has a scheduler of its own, which starts its part again until that ends well.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from attribeam.pipeline.options import Options
from attribeam.schemas.layout import FAILURES
from attribeam.transforms.evaluate import Evaluation
from tests.support.faulty_store import CUT, KILL, Gate, Lives, Write, read_log, serve
from tests.support.hosts import Network
from tests.support.killing import FORK, losses
from tests.support.s3 import BUCKET, ENVIRONMENT, Store
from tests.support.tiny import content, rows, write_jsonl

PARTS = 8
SHARD = 2
# A process that ends so often without being killed will never end well.
_MOST_LIVES = 400
# Waits of leases, some twenty times as short as they are.
_LEASE = {"RENEW": 0.5, "WATCH": 3.0, "LOOK": 0.6, "SETTLE": 0.2}
# So are those of connections of which nothing more is heard, and before a call is made again.
_SILENCE = {"connect_timeout": 5, "read_timeout": 5}
_AGAIN = 20


@dataclass(frozen=True)
class Found:
    """What came of a simulation.

    Attributes:
        hosts: What hosts were.
        kills: Processes that were killed.
        cuts: Links that were cut.
        lives: Processes that the hosts' schedulers started.
        begun: Shards that were begun, again and again ones counted as often.
        shards: Shards of the run.
        problems: What is not as it should be.
    """

    hosts: str
    kills: int
    cuts: int
    lives: int
    begun: int
    shards: int
    problems: list[str]


def simulate(folder: Path, model: Path, *, faults: int, shards: int, seed: int) -> Found:
    """Runs the parts to their ends in a process of its own, and judges what is in the store then.

    Args:
        folder: An empty folder for all that is written.
        model: Folder of a tiny classifier.
        faults: How many kills and cuts there are.
        shards: Shards of the run.
        seed: Of the faults.
    """
    lines: list[Any] = rows(SHARD * shards)
    lines[SHARD] = {"id": "empty", "text": ""}
    write_jsonl(folder / "corpus.jsonl", lines)
    process = FORK.Process(target=_simulated, args=(folder, model, faults, shards, seed))
    process.start()
    process.join()
    said = folder / "found.json"
    if not said.exists():
        raise RuntimeError(f"the simulation broke off (status {process.exitcode})")
    return Found(**json.loads(said.read_text()))


def _options(folder: Path, model: Path, output: str, part: str | None) -> Options:
    return Options(
        *(str(model), str(folder / "corpus.jsonl"), output),
        methods="random,saliency",
        evaluation=Evaluation(fractions=(0.5,)),
        shard_size=SHARD,
        device="cpu",
        part=part,
    )


def _simulated(folder: Path, model: Path, faults: int, shards: int, seed: int) -> None:
    import torch

    from attribeam.pipeline.running.job import run

    torch.set_num_threads(1)
    os.environ.update(ENVIRONMENT)
    undisturbed = folder / "undisturbed"
    # In this process: what it imports and sets up, none of those to come has to.
    run(_options(folder, model, str(undisturbed), None))
    network, lives, log = Network(), Lives(PARTS), folder / "store.log"
    ready, write = os.pipe()
    gate = partial(Gate, network=network, lives=lives, faults=faults, seed=seed, log=log)
    store = _forked(lambda: serve(network, gate, write))
    port = int(os.read(ready, 16))
    there = Store(f"http://{network.store()}:{port}")
    options = _options(folder, model, f"s3://{BUCKET}/run", None)
    hosts = [
        _forked(partial(_host, network, host, port, folder, options, lives))
        for host in range(PARTS)
    ]
    statuses = [_waited(host) for host in hosts]
    out = there.download("run", folder / "out")
    os.kill(store, signal.SIGKILL)
    os.waitpid(store, 0)
    found = _judged(folder, out, undisturbed, str(network), shards)
    for host, status in enumerate(statuses):
        if status:
            found.problems.append(f"host {host} ended with status {status}: {_said(folder, host)}")
    (folder / "found.json").write_text(json.dumps(asdict(found)))


# Hosts --------------------------------------------------------------------------------------------


def _forked(call: Callable[[], None]) -> int:
    """A process that makes a call; its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if process := os.fork():
        return process
    status = 1
    try:
        call()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def _waited(process: int) -> int:
    """Waits for a process; its status, below 0 for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _host(
    network: Network, host: int, port: int, folder: Path, options: Options, lives: Lives
) -> None:
    """A host with its scheduler, which starts the host's part until it ends well."""
    network.join(host)
    own = folder / f"host{host}"
    own.mkdir()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{network.store(host)}:{port}",
        "TMPDIR": str(own),
    }
    mine = replace(options, part=f"{host}/{PARTS}")
    for life in range(_MOST_LIVES):
        os.environ["AWS_SDK_UA_APP_ID"] = f"host{host}-{life}"
        lives[host] = process = _forked(partial(_run, own, mine, life))
        status = _waited(process)
        lives[host] = 0
        if status == 0:
            return
        time.sleep(0.1)
    sys.exit(3)


def _run(own: Path, options: Options, life: int) -> None:
    """Runs a job in this process, which has nothing else to do; what it begins is noted."""
    from apache_beam.utils import retry
    from botocore.config import Config

    from attribeam.pipeline.running.job import run
    from attribeam.pipeline.running.shard import Attributor
    from attribeam.pipeline.store import lock

    said = os.open(own / f"said-{life:03d}", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    for name, seconds in _LEASE.items():
        setattr(lock, name, seconds)
    Config.OPTION_DEFAULTS.update(_SILENCE)
    retry.Clock.sleep = lambda _, seconds: time.sleep(seconds / _AGAIN)  # type: ignore[method-assign]
    begun = os.open(own / "begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = Attributor.process

    def noted(self: Attributor, shard: Any) -> Any:
        os.write(begun, f"{shard.task.shard}\n".encode())
        return process(self, shard)

    Attributor.process = noted  # type: ignore[method-assign]
    run(options)


def _said(folder: Path, host: int) -> str:
    """The end of what a host's last process said."""
    last = max((folder / f"host{host}").glob("said-*"), default=None)
    return "nothing" if last is None else last.read_text()[-2000:]


# What is left -------------------------------------------------------------------------------------


def _judged(folder: Path, out: Path, undisturbed: Path, hosts: str, shards: int) -> Found:
    writes, faults = read_log(folder / "store.log")
    count = Counter(fault.kind for fault in faults)
    begun = [
        int(line) for path in folder.glob("host*/begun") for line in path.read_text().splitlines()
    ]
    lives = sum(1 for _ in folder.glob("host*/said-*"))
    problems = [
        *(f"{name}: {each}" for name, each in asdict(losses(out, undisturbed)).items() if each),
        *_other_scores(out, undisturbed),
        *made_twice(writes),
    ]
    # What a process had in hand when it ended without its end is done again, and nothing else.
    if len(begun) - shards > lives - PARTS:
        problems.append(f"{len(begun)} shards were begun of {shards}, in {lives} processes")
    if {*begun} != {*range(shards)}:
        problems.append(f"shards begun: {sorted({*begun})}")
    return Found(hosts, count[KILL], count[CUT], lives, len(begun), shards, problems)


def _other_scores(out: Path, undisturbed: Path) -> list[str]:
    """Scores that aren't the same to the last bit, as batches are the same."""
    ours, theirs = content(out), content(undisturbed)
    return [
        f"{path}: other scores"
        for path, table in theirs.items()
        if "scores" in table.column_names
        and path in ours
        and not table["scores"].equals(ours[path]["scores"])
    ]


def made_twice(writes: list[Write]) -> list[str]:
    """Tables that one process put in their place after another had.

    Failures are there before the table that they are of, which a kill between the two leaves in
    hand.
    """
    by = defaultdict(set)
    for write in writes:
        name, own = write.path, f"/{FAILURES}/" not in write.path
        if own and "shard-" in name and not name.endswith(".tmp"):
            by[write.path].add(write.by)
    return [f"{path} was made by {sorted(all_)}" for path, all_ in by.items() if len(all_) > 1]


def summary(found: Found) -> str:
    """A sentence on a simulation."""
    return (
        f"{PARTS} parts on {found.hosts}: {found.kills} kills and {found.cuts} cuts, "
        f"{found.lives} processes; {found.shards} shards, begun {found.begun} times; "
        f"{len(found.problems) or 'no'} problems"
    )
