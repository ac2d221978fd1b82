"""How a published run is made again: a configuration that ``attribeam run --config`` takes."""

from collections.abc import Mapping
from typing import Any

import yaml

from attribeam.analysis.opening.manifest import of_pictures, versions
from attribeam.schemas.manifest import Manifest

_HEAD = """\
# Makes this run again, together with the versions that README.md names:
#
#   attribeam run --config reproduce.yaml --output OUT
"""
# Of a model or a corpus that lay on a disk, the name is known, and not where anybody else has it.
_LOCAL = "#\n# Say where you have it with {options}: it was a folder or a file of this name.\n"
# Columns that can be named by an option; the others have names of their own.
_ROLES = (
    *("text", "pair", "label", "id", "split", "rationale", "rationale_pair"),
    *("roles", "subset", "good", "bad"),
    *("image", "mask", "mask_label", "other_mask", "other_label"),
)
_BY_LAYER = ("layers", "information")
# The parameter of methods whose scores were given, and are in a file that isn't published.
_IMPORTED = "imported"
# What else a run is installed with.
_PACKAGES = ("attribeam", "torch", "transformers", "tokenizers")


def is_hub_id(source: str) -> bool:
    """Whether a published name is that of a repository of the hub, as far as it tells."""
    return source.count("/") == 1


def reproduction(manifest: Manifest) -> str:
    """Returns the configuration of a published run, in YAML."""
    identity = manifest["identity"]
    local = [f"--{name}" for name in ("model", "corpus") if not _is_known(identity, name)]
    if any(_IMPORTED in record["params"] for record in manifest["methods"].values()):
        local.append("--scores")
    evaluation: Mapping[str, Any] = manifest["evaluation"] or {}
    imputer = evaluation.get("imputer")
    if imputer and not is_hub_id(imputer.get("source", "")):
        local.append("--imputer")
    if "target_from" in identity["settings"]:
        local.append("--target-from")
    head = _HEAD + (_LOCAL.format(options=" and ".join(local)) if local else "")
    return head + yaml.safe_dump(options_of(manifest), sort_keys=False, allow_unicode=True)


def _is_known(identity: Mapping[str, Any], name: str) -> bool:
    return is_hub_id(identity[name]["source"].partition(":")[0])


def requirements(manifest: Manifest) -> list[str]:
    """What is to be installed, as pip takes it, of the versions of the run's last call."""
    # What stands after a plus is of a build, which indexes of packages don't have.
    found = {
        name: said.split(", ")[-1].partition("+")[0] for name, said in versions(manifest).items()
    }
    return [f"{name}=={found[name]}" for name in _PACKAGES if name in found]


def options_of(manifest: Manifest) -> dict[str, Any]:
    """The options of a run, by name."""
    model, corpus = manifest["identity"]["model"], manifest["identity"]["corpus"]
    options: dict[str, Any] = {"model": model["source"], "corpus": corpus["source"]}
    options |= {name: corpus[name] for name in ("split", "limit") if corpus[name] is not None}
    if "delimiter" in corpus:
        options["delimiter"] = corpus["delimiter"]
    columns = corpus.get("columns") or {}
    options |= {f"{role}_column": columns[role] for role in _ROLES if role in columns}
    if model.get("pooling") == "mean":
        options["pooling"] = "mean"
    if prompts := model.get("prompts"):
        options["prompts"] = ",".join(prompts["texts"])
    return options | _settings(manifest) | _methods(manifest) | _evaluation(manifest)


def _settings(manifest: Manifest) -> dict[str, Any]:
    settings: Mapping[str, Any] = manifest["identity"]["settings"]
    names = {"target": "target", "explain": "output", "seed": "seed", "shard_size": "shard_size"}
    names |= {"dtype": "dtype", "pixels": "pixels"}
    if not of_pictures(manifest):
        names |= {name: name for name in ("max_length", "overflow", "words")}
        if settings.get("overflow") == "stride":
            names["stride"] = "stride"
        if manifest["identity"]["tokenizer"] is None:
            names["mask_token_id"] = "mask_token_id"
    # Of language models alone.
    names |= {name: name for name in ("max_new_tokens", "segments") if name in settings}
    found = {option: settings.get(name) for option, name in names.items()}
    if given := settings.get("target_from"):
        # What another run explains, whose folder or address the reader may have elsewhere.
        found |= {"target": None, "target_from": given.get("source")}
    return {option: value for option, value in found.items() if value is not None}


def _methods(manifest: Manifest) -> dict[str, Any]:
    records = manifest["methods"]
    options: dict[str, Any] = {"methods": [*records]}
    if any(table in _BY_LAYER for record in records.values() for table in record["tables"]):
        options["layers"] = True
    given = {
        name: str(of["params"].get("source", name))
        for name, of in records.items()
        if _IMPORTED in of["params"]
    }
    if given:
        options["scores"] = given
    params = {n: dict(of["params"]) for n, of in records.items() if of["params"] and n not in given}
    return options | ({"set": params} if params else {})


def _evaluation(manifest: Manifest) -> dict[str, Any]:
    evaluation = manifest["evaluation"]
    if evaluation is None:
        return {"evaluate": False}
    options: dict[str, Any] = {}
    if evaluation.get("each"):
        options["fractions"] = "each"
    elif "fractions" in evaluation:
        # Nothing and everything removed are always there.
        options["fractions"] = [f for f in evaluation["fractions"] if 0 < f < 1]
    options |= {name: evaluation[name] for name in ("orders", "operations") if name in evaluation}
    if imputer := evaluation.get("imputer"):
        options |= {"imputer": imputer.get("source"), "fills": evaluation.get("draws")}
    if "text_protocol" not in evaluation:
        options["units"] = evaluation["protocol"]
    elif evaluation["text_protocol"] == "word":
        options["units"] = "word"  # Of pairs; pictures have patches whatever is said.
    return options
