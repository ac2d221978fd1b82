"""``explain``: a model, texts and methods in one call.

It is a run like any other, in a temporary folder, so that what it gives is what a run would have
given, and can be kept as one.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribeam.pipeline.configuration import listed
from attribeam.pipeline.explaining.explanation import Explanation
from attribeam.pipeline.explaining.given import corpus_of, model_folder
from attribeam.pipeline.options import Options
from attribeam.pipeline.places import check_model_folder
from attribeam.schemas import UsageError, UsageTypeError
from attribeam.schemas.catalogue import catalogue, check_names

if TYPE_CHECKING:
    from attribeam.transforms import Chosen


def explain(
    model: Any,
    texts: Any,
    methods: "str | Sequence[str | Chosen]" = "all",
    *,
    tokenizer: Any = None,
    target: str | int = "auto",
    explain: str = "auto",
    prompts: Sequence[str] | None = None,
    evaluate: bool = False,
    columns: Mapping[str, str | None] | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Explanation:
    """Explains what a model says of texts or pictures.

    Args:
        model: A model's folder, a hub id, a model of transformers, a ``pipeline`` of it, or a
            model that ``load_model`` gave. What is in memory is saved into a temporary folder and
            loaded again, in float32 unless ``dtype`` says otherwise.
        texts: A text, a picture (a path, bytes, an array of uint8 or Pillow's), or a list of texts,
            pairs of texts, pictures, rows (dict, with whatever columns a corpus may have) or
            ``Row``; a data frame, an Arrow table or a data set; or the ``pathlib.Path`` of a
            corpus's file.
        methods: Names, or what ``choose`` gave; ``all`` for all that are defined for the model.
        tokenizer: Of a model of transformers; or the processor of its pictures.
        target: Which output to explain, as of ``attribeam run --target``.
        explain: Which scalar of it, as of ``--explain``.
        prompts: Texts that are the classes of pictures, of a model that compares the two.
        evaluate: Perturb inputs along the scores too, for views such as ``faithfulness``.
        columns: Column by role, where the guess is wrong.
        params: Parameters by method: ``{"integrated_gradients": {"steps": 20}}``.
        **options: Others of ``attribeam.Options``, such as ``device``, ``dtype`` or ``seed``.

    Returns:
        An object that shows itself, and can be asked and kept as a run.

    Raises:
        UsageError: If anything about these is wrong; nothing has been computed then.
    """
    names, chosen_params = _named(methods)
    check_names([name for name in names if name != "all"], catalogue())
    if isinstance(model, str) and not Path(model).is_dir():
        check_model_folder(model)
    folder = Path(tempfile.mkdtemp(prefix="attribeam-explain-"))
    try:
        corpus = corpus_of(texts, folder)
        source = model_folder(model, folder / "model", tokenizer)
        asked = _options(
            model=source,
            corpus=corpus.path,
            output=str(folder / "run"),
            methods=",".join(names),
            target=str(target),
            explain=explain,
            prompts=None if prompts is None else _prompt_file(prompts, folder),
            columns={**corpus.columns, **(columns or {})},
            params={**chosen_params, **(params or {})},
            **({} if evaluate else {"evaluation": None}),
            **options,
        )
        notes = _run(asked, certain=bool(corpus.columns))
        shutil.rmtree(folder / "model", ignore_errors=True)
        return Explanation(folder / "run", notes)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _named(
    methods: "str | Sequence[str | Chosen]",
) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """Names of methods, and the parameters of those that were chosen with some."""
    if isinstance(methods, str):
        return listed(methods), {}
    if not isinstance(methods, Sequence):
        raise UsageTypeError(f"the methods are a {type(methods).__name__}: give names")
    named = [each if isinstance(each, str) else each.name for each in methods]
    return named, {each.name: each.params for each in methods if not isinstance(each, str)}


def _prompt_file(prompts: Sequence[str], folder: Path) -> str:
    """Prompts as a file, since they may have commas."""
    given = [prompts] if isinstance(prompts, str) else prompts
    path = folder / "prompts.txt"
    path.write_text("".join(f"{' '.join(each.split())}\n" for each in given), encoding="utf-8")
    return str(path)


def _options(**given: Any) -> Options:
    """The options of the run.

    Raises:
        UsageError: If there is no such option.
    """
    known = {*Options.__dataclass_fields__}
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"explain has no option {unknown[0]!r}: there are {', '.join(known)}")
    return Options(**given)


def _run(options: Options, *, certain: bool) -> list[str]:
    """Runs it; returns what was guessed and left out, in sentences.

    Args:
        options: Those of the run.
        certain: Whether columns are known, so that nothing is to be said of them.
    """
    from attribeam.pipeline.running.job import run  # noqa: PLC0415  Mistakes don't wait for torch.

    notes: list[str] = []
    run(options, notes.append)
    return [each for each in notes if not (certain and each.startswith(("text: ", "image: ")))]
