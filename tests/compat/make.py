"""Makes the run and the data set that a version leaves for all later ones to read.

From the root of the checkout of the version, whose format is to be kept:

    python -m tests.compat.make attribeam 5

``format-5.tar.xz`` then holds the run and what was published of it, ``format-5.json`` what some
views say of them. They are made once, when a format is new, and stay as they are.
"""

import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# Everything that a run can have: text pairs, gold labels, rationales, a failure, two shards.
CORPUS = (
    *("--model", "model", "--corpus", "corpus.jsonl", "--shard-size", "3", "--device", "cpu"),
    *("--rationale-column", "rationale", "--subset-column", "subset"),
    *("--fractions", "0.5", "--orders", "morf,lerf", "--layers"),
)
METHODS = (
    ("--methods", "random,saliency,globenc,influence", "--set", "influence.points=5"),
    (
        *("--methods", "attattr,iba,pattern_ablation", "--set", "iba.steps=2"),
        *("--set", "pattern_ablation.points=5"),
    ),
)
HELD_OUT = ("--model", "model", "--corpus", "held_out.jsonl", "--device", "cpu")
QUERIES = (
    "from faithfulness",
    "from plausibility",
    "from documents order by row_id",
    "select instance_id, word, method, score from words where method = 'saliency' order by all",
    "from completeness",
    "from layer_tokens order by all limit 20",
    "from information_flow order by all",
    "from head_importance order by all",
    "select count(*) as edges, sum(attr) as attr from attribution_tree",
    "from pattern_concentration order by all",
    "from pattern_ablation_summary order by all",
    "from attack_success order by all",
    "from pruning order by all",
    "from failure_summary",
    "select * exclude (params, passes) from methods order by method",
    "select instance_id, text, text_pair, tokens, label, correct, subset from instances"
    " order by instance_id",
)


def main() -> None:
    """Makes the archive and the rows of a format."""
    command, number = shlex.split(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        run, published = Path(folder) / "run", Path(folder) / "published"

        def attribeam(*arguments: object) -> str:
            words = [*command, *map(str, arguments)]
            called = subprocess.run(words, cwd=HERE, check=False, capture_output=True, text=True)
            if called.returncode > 1:  # 1 says that some rows failed, as one is meant to.
                raise SystemExit(f"{shlex.join(words)}: {called.stderr}")
            return called.stdout

        for methods in METHODS:
            attribeam("run", "--output", run, *CORPUS, *methods)
        attribeam("prune", run, *HELD_OUT, "--rates", "0,0.5", "--seeds", "1")
        attribeam("attack", run, *HELD_OUT)
        attribeam("publish", run, "user/compat", "--dry-run", published, "--license", "mit")
        asked = {sql: attribeam("query", run, sql, "--format", "json") for sql in QUERIES}
        with tarfile.open(HERE / f"format-{number}.tar.xz", "w:xz") as archive:
            archive.add(run, "run")
            archive.add(published, "published")
    lines = {sql: ",\n".join(map(json.dumps, json.loads(out))) for sql, out in asked.items()}
    text = ",\n".join(f"{json.dumps(sql)}: [\n{found}\n]" for sql, found in lines.items())
    (HERE / f"format-{number}.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
