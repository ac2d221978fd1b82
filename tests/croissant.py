"""Whether the Croissant that the hub makes of a published run is one, as mlcroissant sees it.

    make croissant

The hub makes it of a data set's configs and features: a file set and a record set for each config,
and a field for each column. Here the same is made of what a dry run wrote, and validated in an
environment of its own. Where mlcroissant can't be installed, that is said.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import datasets

from attribeam.analysis.publish.publish import publish
from tests.support.synthetic_run import synthetic_run, write_run

_CROISSANT, _SCHEMA = "http://mlcommons.org/croissant/", "https://schema.org/"
_OF_CROISSANT = (
    *("arrayShape", "citeAs", "column", "extract", "field", "fileProperty", "fileObject"),
    *("fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
    *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
    *("separator", "source", "subField", "transform"),
)
_TYPES = {
    "string": "sc:Text",
    "binary": "sc:Text",
    "bool": "sc:Boolean",
    **{f"int{bits}": f"cr:Int{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"cr:Float{bits}" for bits in (16, 32, 64)},
}
_VALIDATE = """
import sys
from importlib.metadata import version
import mlcroissant
found = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = found.metadata.ctx.issues
print(version('mlcroissant'), len(found.metadata.record_sets), len(issues.errors))
print(issues.report())
"""


def croissant_of(folder: Path, name: str) -> dict[str, Any]:
    """The Croissant of a published run's folder, as JSON-LD.

    Args:
        folder: What a dry run wrote.
        name: The data set's name on the hub.
    """
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": "repo",
            "name": "repo",
            "description": "The git repository.",
            "contentUrl": f"https://huggingface.co/datasets/{name}/tree/refs%2Fconvert%2Fparquet",
            "encodingFormat": "git+https",
            "sha256": "https://github.com/mlcommons/croissant/issues/80",
        }
    ]
    records: list[dict[str, Any]] = []
    for config in datasets.get_dataset_config_names(str(folder)):
        of_files = f"parquet-files-for-config-{config}"
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": of_files,
                "containedIn": {"@id": "repo"},
                "encodingFormat": "application/x-parquet",
                "includes": f"{config}/*/*.parquet",
            }
        )
        builder = datasets.load_dataset_builder(str(folder), config)
        records += _records(config, of_files, builder.info)
    own = {word: f"cr:{word}" for word in _OF_CROISSANT}
    context = {
        "@language": "en",
        "@vocab": _SCHEMA,
        "sc": _SCHEMA,
        "cr": _CROISSANT,
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        **own,
    }
    return {
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": f"{_CROISSANT}1.1",
        "name": name.replace("/", "_"),
        "description": "A published run.",
        "license": "https://choosealicense.com/licenses/mit/",
        "url": f"https://huggingface.co/datasets/{name}",
        "distribution": files,
        "recordSet": records,
    }


def _records(config: str, files: str, info: datasets.DatasetInfo) -> list[dict[str, Any]]:
    """The record sets of a config: its splits, and its rows."""
    splits = f"{config}_splits"
    named = {"@type": "cr:Field", "@id": f"{splits}/split_name", "dataType": "sc:Text"}
    names = [str(split) for split in info.splits or {}]
    of_splits = {
        "@type": "cr:RecordSet",
        "@id": splits,
        "name": splits,
        "dataType": "cr:Split",
        "key": {"@id": named["@id"]},
        "field": [named],
        "data": [{named["@id"]: split} for split in names],
    }
    path = f"{re.escape(config)}/(?:partial-)?({'|'.join(map(re.escape, names))})/.+parquet$"
    split = {
        "@type": "cr:Field",
        "@id": f"{config}/split",
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": files},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": path},
        },
        "references": {"field": {"@id": named["@id"]}},
    }
    fields, taken = [split], {"split"}
    for column, feature in (info.features or {}).items():
        own = re.sub(r"[^\w.-]", "_", column, flags=re.ASCII)
        while own in taken:  # As the hub does it, whose field of splits is called so, too.
            own = f"{own}_0"
        taken.add(own)
        fields.append(_field(f"{config}/{own}", {"column": column}, files, feature, ()))
    return [of_splits, {"@type": "cr:RecordSet", "@id": config, "field": fields}]


def _field(
    name: str, extract: dict[str, str], files: str, feature: Any, path: tuple[str, ...]
) -> dict[str, Any]:
    """The field of a column, or of a part of a structure."""
    if isinstance(feature, datasets.List):
        inner = _field(name, extract, files, feature.feature, path)
        return {**inner, "isArray": True, "arrayShape": "-1"}
    if isinstance(feature, dict):
        parts = [
            _field(f"{name}/{part}", extract, files, of, (*path, part))
            for part, of in feature.items()
        ]
        return {"@type": "cr:Field", "@id": name, "subField": parts}
    source: dict[str, Any] = {"fileSet": {"@id": files}, "extract": extract}
    steps = [{"jsonPath": part} for part in path]
    if isinstance(feature, datasets.Image):
        steps, kind = [*steps, {"jsonPath": "bytes"}], "sc:ImageObject"
    else:
        kind = "sc:Integer" if isinstance(feature, datasets.ClassLabel) else _TYPES[feature.dtype]
    if steps:
        source["transform"] = steps if len(steps) > 1 else steps[0]
    return {"@type": "cr:Field", "@id": name, "dataType": kind, "source": source}


def main() -> int:
    """Validates it; 1 where that finds an error."""
    with tempfile.TemporaryDirectory(prefix="attribeam-croissant-") as place:
        root = Path(place)
        run = write_run(synthetic_run(rows=9), root / "run")
        name = "someone/some-run"
        publish(run, name, license="mit", dry_run=root / "published")
        path = root / "croissant.json"
        path.write_text(json.dumps(croissant_of(root / "published", name)), encoding="utf-8")
        venv.create(root / "environment", with_pip=True)
        python = str(root / "environment" / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "mlcroissant"]
        done = subprocess.run(install, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it failed"])[-1]
            print(f"mlcroissant can't be installed here ({said[:200]})")
            return 0
        validate = [python, "-c", _VALIDATE, str(path)]
        done = subprocess.run(validate, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"WRONG: {done.stderr.strip()[-2000:]}")
            return 1
        first, _, report = done.stdout.partition("\n")
        version, sets, errors = first.split()
        print(f"mlcroissant {version}: {sets} record sets, {errors} errors")
        print(report.strip())
        return 1 if int(errors) else 0


if __name__ == "__main__":
    sys.exit(main())
