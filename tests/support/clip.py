"""The small CLIP of the goldens, with a tokenizer and a processor beside it, and its pictures."""

import json
import shutil
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.support.models import GOLDENS

# Its texts, as the goldens have them, by ids between the opening and the end token.
TEXTS = (
    *("t66 t79 t03 t79", "t46 t50 t62 t28 t96 t06 t27"),
    "t38 t56 t40 t13 t05 t01 t05 t15 t97 t19",
)
OPENS, ENDS, WORDS = 98, 99, 100
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "rescale_factor": 1 / 255,
    "resample": 3,
    "size": {"shortest_edge": 32},
}


def clip_folder(folder: Path) -> Path:
    """Saves the model into a folder that isn't there, with all that a real one has."""
    shutil.copytree(GOLDENS / "clip-golden", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    words = Tokenizer(models.WordLevel({f"t{n:02}": n for n in range(WORDS)}, unk_token="t01"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"t{OPENS} $A t{ENDS}",
        special_tokens=[(f"t{OPENS}", OPENS), (f"t{ENDS}", ENDS)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=f"t{OPENS}",
        eos_token=f"t{ENDS}",
        pad_token="t00",
        unk_token="t01",
        model_max_length=12,
    ).save_pretrained(folder)
    return folder


@cache
def pictures() -> list[list[float]]:
    """Pixels of the four pictures of the goldens."""
    rows = pq.read_table(GOLDENS / "corpus_clip.parquet").to_pylist()
    return [row["pixel_values"] for row in rows if row["id"].endswith("-0")]
