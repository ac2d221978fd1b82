"""An Arrow schema per table, with a sentence per column.

List columns have one entry per token of the instance: special tokens are included (the ``special``
column marks them), padding never is. Scores are stored raw, as the method gives them; zeroing,
clamping, aggregation to words and normalising are done in SQL.
"""

import json
from typing import NamedTuple

import pyarrow as pa

# Few distinct values a file: a dictionary costs nothing, and because readers that infer hive
# partitions make dictionaries of them too, ``pq.read_table(OUT/attributions)`` finds equal types.
NAME = pa.dictionary(pa.int32(), pa.string())
REAL = pa.float32()
# A part of a prompt: positions of its first and its last token, and whether it may be removed.
SEGMENT = pa.struct(
    [
        ("kind", pa.string()),
        ("first", pa.int32()),
        ("last", pa.int32()),
        ("removable", pa.bool_()),
    ]
)
# A picture's file, as ``datasets`` stores it; ``path`` is null, since the bytes are here.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Metadata of a file, by which ``datasets`` knows that such columns are of pictures.
_PICTURES = {"image": {"_type": "Image"}, "mask": {"_type": "Image"}}
IMAGE_METADATA = {"huggingface": json.dumps({"info": {"features": _PICTURES}})}


class Failure(NamedTuple):
    """A row of ``failures``: an instance, or an instance under one method, that gave no result.

    ``row_id`` is the row of the corpus whose window it is; None where it is the whole row.
    ``corpus_row`` is the number of that row.
    """

    instance_id: str
    stage: str
    method: str | None
    error: str
    message: str
    row_id: str | None = None
    corpus_row: int | None = None


# Of all the rows that are read: of the split, if one was named, and of its files in their order.
_CORPUS_ROW = (
    "Number of its row in the corpus, from 0, as that is read; null where it wasn't stored"
)


def _column(name: str, kind: pa.DataType, comment: str, *, added: bool = False) -> pa.Field:
    """A column; one that was ``added`` is missing from files that were written before."""
    metadata = {"comment": comment} | ({"added": "true"} if added else {})
    return pa.field(name, kind, metadata=metadata)


_INSTANCES = (
    _column("instance_id", pa.string(), "The corpus's own id, else a hash of content and position"),
    _column(
        "row_id", pa.string(), "Row of the corpus: instance_id, unless this is a window of its text"
    ),
    _column(
        "window",
        pa.int32(),
        "Number of the window, from 0, under --overflow stride; null where the text fitted",
    ),
    _column("split", NAME, "Split of the corpus, where it is known"),
    _column(
        "text",
        pa.string(),
        "The text; null for a pre-tokenised corpus; of windows, the whole text with the first",
    ),
    _column("text_pair", pa.string(), "The second text of a pair, else null"),
    _column(
        "tokens",
        pa.list_(pa.string()),
        "Token strings, special tokens included; of pictures r0c0 and so on",
    ),
    _column(
        "input_ids", pa.list_(pa.int32()), "Vocabulary ids of the tokens; of pictures their numbers"
    ),
    _column(
        "word_ids",
        pa.list_(pa.int32()),
        "Index of the word within its text, of the patch; null if special",
    ),
    _column("char_start", pa.list_(pa.int32()), "First character in its text; null if special"),
    _column("char_end", pa.list_(pa.int32()), "End character (exclusive) in its text"),
    _column("special", pa.list_(pa.bool_()), "True for [CLS], [SEP] and the like"),
    _column(
        "segment",
        pa.list_(pa.int8()),
        "0 for the first text, 1 for the second; of language models 1 for what follows the prompt",
    ),
    _column("truncated", pa.bool_(), "True if the text was longer than the limit and was cut"),
    _column(
        "readout",
        pa.int32(),
        "Position read out: [CLS], [MASK], or the last token; null where a mean is",
    ),
    _column("contrast", pa.list_(pa.string()), "Masked LM only: the correct and the wrong word"),
    _column(
        "label", pa.int32(), "Gold class; for a masked LM 0, the correct word; null if unknown"
    ),
    _column(
        "prediction",
        pa.int32(),
        "Predicted class (largest logit); of a language model 0 where that is the token that "
        "follows, 1 its foil, 2 another token",
    ),
    _column(
        "probabilities",
        pa.list_(REAL),
        "Softmax of the logits; of values themselves",
    ),
    _column(
        "logits",
        pa.list_(REAL),
        "Logit per class; for a masked LM of the two contrast words; for a language model of the "
        "token that follows, of what it is compared with, the largest of all others, and the log "
        "of the sum of exp(logit) over the rest",
    ),
    _column("rationale", pa.list_(pa.int8()), "Per token: 1 where its word is in the rationale"),
    _column("roles", pa.list_(pa.string()), "Per token: role of its word (subject, ...), or null"),
    _column("subset", pa.string(), "Subset of the corpus, such as a subtask; null without one"),
    _column("correct", pa.bool_(), "prediction = label; null without a label"),
    _column(
        "question",
        pa.int32(),
        "Number of the question of its row (or window), from 0; null where there is but one",
        added=True,
    ),
    _column(
        "question_kind",
        pa.string(),
        "next (why a token follows), label (whether the row has it), value (of a regression), "
        "token (class of a word), start "
        "or end (of an answer), object (a class that a mask is of); null for the row's class, or a "
        "masked LM's word",
        added=True,
    ),
    _column(
        "outputs",
        pa.list_(pa.string()),
        "Name of the label or the value that is asked for; of a language model the token that "
        "follows and what it is compared with; null for all classes",
        added=True,
    ),
    _column(
        "image",
        IMAGE,
        "Of pictures: what the model saw, as a PNG file of at most 96 pixels a side; where the "
        "model has no processor that says what its numbers were made of, colours go from the least "
        "number to the largest; of other than 1 or 3 channels the mean, in grey",
        added=True,
    ),
    _column("width", pa.int32(), "Of pictures: pixels in a row of the model's input", added=True),
    _column("height", pa.int32(), "Of pictures: pixels in a column of it", added=True),
    _column("rows", pa.int32(), "Of pictures: number of rows of patches", added=True),
    _column("columns", pa.int32(), "Of pictures: number of patches in a row", added=True),
    _column(
        "patch",
        pa.int32(),
        "Of pictures: pixels along a patch's side; null where patches are no squares",
        added=True,
    ),
    _column(
        "modality",
        NAME,
        "Of pairs (CLIP): image or text, the side of its row; null where there are no pairs",
        added=True,
    ),
    _column(
        "text_rationale",
        pa.list_(pa.int8()),
        "Per word of the whole first text: 1 where it is in the rationale; of texts that are cut "
        "or in windows, with the first of them, else null",
        added=True,
    ),
    _column(
        "mask",
        IMAGE,
        "Of pictures: where the class is seen, as a PNG file of a bit a pixel in the size of "
        "image: the mask that the rationale is of; null without one",
        added=True,
    ),
    _column(
        "prompt_length",
        pa.int32(),
        "Of language models, this and what follows: tokens of the prompt; further ones are earlier "
        "tokens of the continuation",
        added=True,
    ),
    _column(
        "token",
        pa.string(),
        "The token that follows those of tokens: that it does is what is explained",
        added=True,
    ),
    _column("token_id", pa.int32(), "Its vocabulary id", added=True),
    _column("foil", pa.string(), "What the corpus compares it with; null without one", added=True),
    _column("foil_id", pa.int32(), "Its vocabulary id", added=True),
    _column(
        "runner_up_id",
        pa.int32(),
        "Vocabulary id of the token of the largest logit but its own: its foil where there is none",
        added=True,
    ),
    _column("logit", REAL, "Its logit", added=True),
    _column("foil_logit", REAL, "Logit of what it is compared with", added=True),
    _column("log_prob", REAL, "Its log-probability among all tokens", added=True),
    _column("entropy", REAL, "Entropy of the next token's distribution, in nats", added=True),
    _column("rank", pa.int32(), "Its rank by logit among all tokens, from 1", added=True),
    _column("is_eos", pa.bool_(), "Whether it is an end token", added=True),
    _column(
        "given",
        pa.bool_(),
        "Whether the corpus has the continuation; false where the model has said it",
        added=True,
    ),
    _column(
        "segments",
        pa.list_(SEGMENT),
        "Parts of the prompt: what each is (a role of messages, document, sentence, or as the "
        "corpus says), its first and last token, and whether none of it is kept whatever is "
        "removed (special tokens, the one that is read)",
        added=True,
    ),
    _column("corpus_row", pa.int64(), _CORPUS_ROW, added=True),
    _column(
        "rationale_segments",
        pa.list_(pa.int8()),
        "Of pairs: the texts that the rationale is of, 0 and 1, or 1 alone; null where it is of "
        "the first alone, and without one",
        added=True,
    ),
    _column(
        "text_pair_rationale",
        pa.list_(pa.int8()),
        "Per word of the whole second text: as text_rationale of the first",
        added=True,
    ),
)

_ATTRIBUTIONS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("target", pa.int32(), "Class explained; null where the method is class-independent"),
    _column("layer", pa.int32(), "Encoder layer the scores belong to; null for the whole model"),
    _column("scores", pa.list_(REAL), "Raw score per token"),
    _column(
        "delta",
        REAL,
        "Completeness gap: sum of scores (and bias, and unattributed) - (f(x) - f(baseline)); "
        "else null",
    ),
    _column("scale", REAL, "Natural log of what the scores were divided by; null if by nothing"),
    _column(
        "bias", REAL, "What the method gives to the model's biases and not to tokens; else null"
    ),
    _column(
        "seconds",
        REAL,
        "Cost of the method alone: its passes and its own work, shared by the tokens of its batch",
    ),
    _column(
        "pixels",
        pa.list_(REAL),
        "Raw score per pixel, row by row, under --pixels, of methods that score pixels: those of a "
        "patch make its entry of scores; else null",
        added=True,
    ),
    _column(
        "unattributed",
        REAL,
        "What is left of the explained output where the method gives it to no token: under "
        "alti_logit to feed-forward parts and biases; else null",
        added=True,
    ),
    _column(
        "steps",
        pa.int32(),
        "Points that an integral along a path was taken at; null where there is none",
        added=True,
    ),
    _column(
        "error",
        REAL,
        "Estimated error of the integral over its largest value: the completeness gap, or what "
        "half the points would change, whichever is larger; null where neither is known",
        added=True,
    ),
)

_LAYERS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("layer", pa.int32(), "Encoder layer, from 0"),
    _column("local", pa.list_(REAL), "Raw score per token of the layer alone, at the readout"),
    _column(
        "rollout",
        pa.list_(REAL),
        "Score per token from the layer down to the input, summing to 1; the last layer's is the "
        "method's whole-model score",
    ),
    _column("scale", REAL, "Natural log of what rollout was divided by"),
    _column(
        "mixing",
        pa.list_(REAL),
        "Context-mixing ratio per token: how much of it comes from the others, 0 to 1; null where "
        "the method has none",
    ),
)

_INFORMATION = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("layer", pa.int32(), "Encoder layer after which the bottleneck sits, from 0"),
    _column("target", pa.int32(), "Class whose prediction the bottleneck is to keep"),
    _column("bits", pa.list_(REAL), "Information per token that passes the bottleneck, in bits"),
)

_HEADS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("layer", pa.int32(), "Encoder layer, from 0"),
    _column("head", pa.int32(), "Head of the layer, from 0"),
    _column("target", pa.int32(), "Class explained"),
    _column("attr_max", REAL, "Largest attribution in the head's attention matrix"),
    _column("attr_sum", REAL, "Sum of its attributions"),
    _column("attr_positive", REAL, "Sum of those above 0"),
    _column("attr_negative", REAL, "Sum of those below 0; 0 or less"),
    _column("attention_mean", REAL, "Mean over the tokens that take of their largest attention"),
    _column("attention_max", REAL, "Largest attention"),
    _column("top1_from", pa.int32(), "Token that takes, of the largest attribution: its position"),
    _column("top1_to", pa.int32(), "Position of the token that is taken from"),
    _column("top1", REAL, "The largest attribution: attr_max"),
    _column("top2_from", pa.int32(), "The same of the second largest; null for a single token"),
    _column("top2_to", pa.int32(), "Position of the token that is taken from"),
    _column("top2", REAL, "The second largest attribution"),
    _column("taylor_loss", REAL, "Sum over tokens of |context . d loss / d context|"),
    _column("taylor_logits", REAL, "The same for the sum of the logits"),
)

_INTERACTIONS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("layer", pa.int32(), "Encoder layer, from 0"),
    _column("target", pa.int32(), "Class explained"),
    _column("output", REAL, "Output that is explained: F(A)"),
    _column("without", REAL, "The output without this layer's attention: F(0)"),
    _column("steps", pa.int32(), "Points of the integral that the attributions are"),
    _column("gap", REAL, "What it misses: |sum of all attributions - (F(A) - F(0))|"),
    _column("query", pa.list_(pa.int32()), "Positions of the tokens that take, strongest first"),
    _column("key", pa.list_(pa.int32()), "Positions of the tokens that are taken from"),
    _column("attr", pa.list_(REAL), "Attribution of each pair, summed over the heads"),
    _column("prop", pa.list_(REAL), "attr over the layer's largest outside the readout's row"),
    _column("dropped", pa.int32(), "Number of pairs left out whose attribution isn't 0"),
    _column("mass_dropped", REAL, "Sum of their absolute attributions"),
    _column(
        "error",
        REAL,
        "Its estimated error: the gap, or what half of the points would change of what is taken "
        "from a token, where that is known and more",
        added=True,
    ),
)

_TREE_EDGES = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("algorithm", NAME, "code: the authors' released one; paper: with the terminal edges"),
    _column("position", pa.int32(), "When the edge was added to the tree, from 0"),
    _column("parent", pa.int32(), "Position of the token that takes"),
    _column("child", pa.int32(), "Position of the token that is taken from"),
    _column("layer", pa.int32(), "Encoder layer of the attention, from 0"),
    _column("attr", REAL, "Attribution of the pair, summed over the heads"),
    _column("prop", REAL, "attr over the layer's largest outside the readout's row"),
)

_TREE_NODES = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("algorithm", NAME, "code or paper"),
    _column("token", pa.int32(), "Position of the token, from 0; every token has a row"),
    _column("state", pa.int8(), "-1: not in the tree, 0: a leaf, 1: has children"),
    _column("is_root", pa.bool_(), "Whether it is the top of the tree"),
    _column("depth", pa.int32(), "Edges from the top; null outside the tree"),
    _column("top_score", REAL, "What the top is chosen by: the largest"),
)

_PATTERNS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("level", NAME, "embedding (nodes), or attention (heads and skips between them too)"),
    _column("source", pa.int32(), "Position of the token whose influence it is"),
    _column("nodes", pa.list_(pa.int32()), "Positions, one per layer: source first, readout last"),
    _column("roles", pa.list_(pa.string()), "Role of each node's word; a special token is its own"),
    _column("heads", pa.list_(pa.int32()), "Head per layer, -1 = skip; null at embedding level"),
    _column("steps", pa.list_(REAL), "Influence after each step of the refinement"),
    _column("influence", REAL, "Influence through the pattern: the last step's"),
    _column("input_influence", REAL, "Influence of the token through all paths"),
    _column("concentration", REAL, "influence / input_influence, not bounded; null if that is 0"),
    _column("points", pa.int32(), "Points of the path that it was found at", added=True),
    _column(
        "error",
        REAL,
        "What half of the points would add to influence; null where that is unknown",
        added=True,
    ),
    _column(
        "sure",
        pa.bool_(),
        "Whether every node and head was ahead of the others by more than half of the points "
        "change of that; null where that is unknown",
        added=True,
    ),
)

_MASKS = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("mask", pa.int32(), "Number of the mask, from 0"),
    _column("target", pa.int32(), "Class that logit and probability are of"),
    _column("unit", NAME, "What was left out as one: token, word, segment or patch"),
    _column("operation", NAME, "How it was left out"),
    _column("kept", pa.list_(pa.bool_()), "Per token: whether it was there"),
    _column("logit", REAL, "Logit of the class; of all that follows a prompt its log-probability"),
    _column("probability", REAL, "Probability of the class"),
)

_PATTERN_ABLATION = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column(
        "kind", NAME, "Which nodes are kept: whole, nothing, or those of some patterns or paths"
    ),
    _column("nodes_kept", pa.int32(), "Number of nodes that are kept, of all layers"),
    _column("heads_kept", pa.int32(), "Number of heads over queries; null where none is ablated"),
    _column("skips_kept", pa.int32(), "Number of skips around attention; null likewise"),
    _column("output", REAL, "What is explained, of the ablated model"),
    _column("correct", pa.bool_(), "Whether it is above 0: the explained class still wins"),
)

_LOCALISATION = (
    _column("instance_id", pa.string(), "Key of instances; those without a mask have no row"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column("target", pa.int32(), "Class looked for: the one explained, else that of the run"),
    _column("level", NAME, "The map: scores of a patch each, enlarged, or of a pixel each"),
    _column(
        "region",
        NAME,
        "object: inside are the masks that are known to be of that class; mask: none is, and "
        "inside are those of the picture's label",
    ),
    _column("threshold", NAME, "Above what a pixel counts as found: mean, that of the map"),
    _column("tp", pa.int32(), "Pixels found that are inside"),
    _column("fp", pa.int32(), "Pixels found that are outside"),
    _column("fn", pa.int32(), "Pixels inside that are not found"),
    _column("tn", pa.int32(), "Pixels outside that are not found"),
    _column(
        "average_precision",
        pa.float64(),
        "Of the map m and 1 - m, from 0 to 1, ranked together; 0.5 for a map of equal values",
    ),
    _column("f1", pa.float64(), "Harmonic mean of precision and recall of the pixels found"),
    _column(
        "f1_rows",
        pa.float64(),
        "Mean of the same over rows of pixels, 0 for a row without any: as it has been published",
    ),
    _column(
        "hit",
        pa.bool_(),
        "Whether a pixel of the largest value is inside; false for a map of equal values",
    ),
    _column(
        "mass_inside",
        pa.float64(),
        "Share of the positive scores inside, each patch's lying evenly in it; null without any",
    ),
    _column(
        "rank_accuracy",
        pa.float64(),
        "Of as many pixels of the largest values as are inside, the share that is inside",
    ),
    _column(
        "hit_other",
        pa.bool_(),
        "Whether a pixel of the largest value is on a thing of another class; null without one",
    ),
    _column(
        "mass_other",
        pa.float64(),
        "Share of the positive scores on things of other classes; null without one",
    ),
    _column("empty_mask", pa.bool_(), "Nothing is inside: what is a share of that is null"),
)

_CURVES = (
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Method whose scores gave the order"),
    _column(
        "protocol",
        NAME,
        "What is removed at a time: token, word, or segment of a prompt; compat: tokens, where "
        "removed and units count all tokens, as IBA's authors do; of pictures patch or pixel",
    ),
    _column("order", NAME, "morf: most relevant first; lerf: least relevant first; random"),
    _column(
        "operation",
        NAME,
        "How it is removed: mask, pad, delete or impute; of pictures mean, black or drop",
    ),
    _column("fraction", pa.float64(), "Nominal fraction removed, 0 (nothing) to 1 (everything)"),
    _column("removed", pa.int32(), "Number of tokens, words, patches or pixels removed"),
    _column("units", pa.int32(), "Number that can be removed; removed / units is the exact share"),
    _column("probability", REAL, "Probability of the explained class on the perturbed input"),
    _column("logit", REAL, "Logit of the explained class on the perturbed input"),
    _column("prediction", pa.int32(), "Predicted class on the perturbed input"),
    _column("flipped", pa.bool_(), "Whether that is another class than on the whole input"),
    _column(
        "target",
        pa.int32(),
        "Class that probability and logit are of: the one that the scores explain, else that of "
        "the run; null where it wasn't stored yet",
        added=True,
    ),
    _column(
        "log_prob",
        REAL,
        "Of language models: log-probability of the token that follows, or of all that do, on the "
        "perturbed input; else null",
        added=True,
    ),
    _column(
        "foil_log_prob",
        REAL,
        "Of language models: that of what the token is compared with; null for all that follow",
        added=True,
    ),
    _column(
        "entropy",
        REAL,
        "Entropy in nats of what the model says of the perturbed input: of its classes; of "
        "language models, of all tokens. Null of values, of all that follow, and in runs of before",
        added=True,
    ),
    _column(
        "kl",
        REAL,
        "Kullback-Leibler divergence in nats of that from what it says of the whole input: "
        "KL(perturbed || whole); 0 where nothing is removed. Null as entropy",
        added=True,
    ),
    _column(
        "spread",
        REAL,
        "Under impute: standard deviation of the probability over the fills that were drawn, whose "
        "mean it is; else null",
        added=True,
    ),
)

_FAILURES = (
    _column("instance_id", pa.string(), "The instance that gave no result"),
    _column("stage", NAME, "read, encode, forward, attribute or perturb"),
    _column("method", NAME, "The method that failed; null if the instance failed for all of them"),
    _column("error", pa.string(), "Class of the error"),
    _column("message", pa.string(), "What went wrong"),
    _column("row_id", pa.string(), "Row of the corpus that it is, or is a window of"),
    _column("corpus_row", pa.int64(), _CORPUS_ROW, added=True),
)

_PRUNING = (
    _column("evaluation", NAME, "Key of the evaluation: its corpus and settings; the file's name"),
    _column("method", NAME, "Method whose heads are ranked"),
    _column(
        "importance",
        NAME,
        "What the least of is pruned: attattr, taylor_loss, taylor_logits (over its layer's l2 "
        "norm), attention or random",
    ),
    _column("seed", pa.int32(), "Seed of a random order; else null"),
    _column("corpus", NAME, "Evaluation corpus, which has no text of the run"),
    _column("split", NAME, "Its split, where it is known"),
    _column("rate", pa.float64(), "Nominal share of all heads that is pruned, 0 to 1"),
    _column("pruned", pa.int32(), "Number of heads pruned: rate * heads, rounded down"),
    _column("heads", pa.int32(), "Number of heads of the model"),
    _column("n", pa.int32(), "Number of evaluation instances"),
    _column("correct", pa.int32(), "Number of them that the pruned model predicts rightly"),
    _column("accuracy", pa.float64(), "correct / n"),
    _column("loss", pa.float64(), "Mean cross entropy of the gold class, in nats"),
)

_ATTACKS = (
    _column("evaluation", NAME, "Key of the evaluation: its corpus and settings; the file's name"),
    _column("method", NAME, "Method whose heads gave the triggers"),
    _column("corpus", NAME, "Evaluation corpus, which has no text of the run"),
    _column("split", NAME, "Its split, where it is known"),
    _column("rank", pa.int32(), "Rank of the trigger by its score, 1 for the largest"),
    _column("source_id", pa.string(), "Instance of the run that the trigger comes from"),
    _column("explained", pa.int32(), "Class that its attributions explain"),
    _column("tokens", pa.list_(pa.string()), "The trigger's tokens, in order"),
    _column("segment", pa.list_(pa.int8()), "Text that each goes to: 0 the first, 1 the second"),
    _column("relative", pa.list_(pa.float64()), "Place of each in its text: above 0, 1 at the end"),
    _column("score", pa.float64(), "Sum of the two largest attributions of its head"),
    _column("gold", pa.int32(), "Gold class of the instances that this row counts"),
    _column("n", pa.int32(), "Number of them that the whole trigger could be put into"),
    _column("skipped", pa.int32(), "Number of those too long for it, or without a second text"),
    _column("correct_before", pa.int32(), "Of n, those predicted rightly as they are"),
    _column("correct_after", pa.int32(), "Of n, those predicted rightly with the trigger"),
    _column("flipped", pa.int32(), "Of n, those predicted rightly only without it"),
)

# Of the tables of `attribeam check`.
_CHECK = _column("evaluation", NAME, "Key of the check and its settings; its files' names begin so")
_SCORED = (
    _column("target", pa.int32(), "Class that is explained: the one that the run's scores explain"),
    _column(
        "scores",
        pa.list_(REAL),
        "Raw score per token; null where the method failed: `failure` says why",
    ),
    _column("logit", REAL, "Logit of that class"),
    _column("probability", REAL, "Probability of it"),
    _column("prediction", pa.int32(), "Predicted class"),
    _column("failure", pa.string(), "Why there are no scores; else null"),
)

_RANDOMISED = (
    _CHECK,
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column(
        "kind",
        NAME,
        "What is other than in the run: whole (nothing, stage 0), cascading (this part and those "
        "above it), independent (this part alone), class (the class explained: the runner-up)",
    ),
    _column(
        "weights",
        NAME,
        "What randomised parts hold: init (drawn anew as transformers does), shuffle (their own "
        "numbers, permuted); null where none is randomised",
    ),
    _column("seed", pa.int32(), "Seed of these weights; null where none is randomised"),
    _column(
        "stage", pa.int32(), "Number of the part from the head (1) down; 0 where there is none"
    ),
    _column("part", NAME, "Name of the part: head, layer.3, embeddings; null where there is none"),
    *_SCORED[:2],
    _column(
        "smoothed", pa.list_(REAL), "Mean of the scores of noised inputs, under --smooth; else null"
    ),
    *_SCORED[2:],
)

_NOISED = (
    _CHECK,
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`"),
    _column(
        "radius",
        pa.float64(),
        "Noise is uniform within so much of each number: --radius of the instance's root mean "
        "square where the encoder begins; of pictures, of its pixels",
    ),
    _column("sample", pa.int32(), "Number of the draw, from 0"),
    _column("noise_norm", pa.float64(), "l2 norm of the noise over all of the input"),
    *_SCORED,
)

_SUBSETS = (
    _CHECK,
    _column("instance_id", pa.string(), "Key of instances"),
    _column("protocol", NAME, "What is removed at a time: token, word or patch"),
    _column("operation", NAME, "How it is removed, as in curves"),
    _column("kind", NAME, "whole (nothing is removed), one (one unit), random (a random subset)"),
    _column("sample", pa.int32(), "Number of the subset among those of its kind, from 0"),
    _column("removed", pa.list_(pa.bool_()), "Per token: whether it is removed"),
    _column("size", pa.int32(), "Number of units removed"),
    _column("units", pa.int32(), "Number that can be removed"),
    _column("target", pa.int32(), "Class that is explained"),
    _column("explained", REAL, "The explained scalar of the class, without what is removed"),
    _column("probability", REAL, "Probability of the class, likewise"),
    _column("logit", REAL, "Logit of the class, likewise"),
    _column("prediction", pa.int32(), "Predicted class, likewise"),
    _column("failure", pa.string(), "Why an instance has no subsets, in one row; else null"),
)

_REPEATS = (
    _CHECK,
    _column("instance_id", pa.string(), "Key of instances"),
    _column("method", NAME, "Name in `attribeam methods`: one that is stochastic"),
    _column("seed", pa.int64(), "Seed of what is random; that of the run isn't repeated"),
    *_SCORED,
)

# In the order in which a run commits them.
_FIELDS = {
    "instances": _INSTANCES,
    "attributions": _ATTRIBUTIONS,
    "layers": _LAYERS,
    "information": _INFORMATION,
    "heads": _HEADS,
    "interactions": _INTERACTIONS,
    "tree_edges": _TREE_EDGES,
    "tree_nodes": _TREE_NODES,
    "patterns": _PATTERNS,
    "pattern_ablation": _PATTERN_ABLATION,
    "masks": _MASKS,
    "localisation": _LOCALISATION,
    "curves": _CURVES,
    "failures": _FAILURES,
}
TABLES = tuple(_FIELDS)

# What later commands add to a finished run, a file an evaluation. No shard has them.
CHECKS = ("randomised", "noised", "subsets", "repeats")  # Of `attribeam check`.
_EVALUATION_FIELDS = {
    "pruning": _PRUNING,
    "attacks": _ATTACKS,
    **dict(zip(CHECKS, (_RANDOMISED, _NOISED, _SUBSETS, _REPEATS), strict=True)),
}
EVALUATIONS = tuple(_EVALUATION_FIELDS)

# Columns whose values must be equal whenever the same thing is computed again (seconds are not).
CONTENT_FIELDS = {
    table: tuple(field.name for field in fields if field.name != "seconds")
    for table, fields in _FIELDS.items()
}


def table_schema(table: str, *, double: bool = False) -> pa.Schema:
    """Returns the Arrow schema of a table.

    Args:
        table: One of ``TABLES`` or ``EVALUATIONS``.
        double: Store real numbers in float64 instead of float32. A run in float64 does, so that its
            scores keep the digits that were asked for; a run never mixes the two.

    Raises:
        KeyError: If there is no such table.
    """
    fields = (_FIELDS | _EVALUATION_FIELDS)[table]
    if double:
        fields = tuple(field.with_type(_widened(field.type)) for field in fields)
    return pa.schema(fields)


def added(schema: pa.Schema) -> set[str]:
    """The columns of a table that were thought of later than it: older files lack them."""
    return {field.name for field in schema if b"added" in (field.metadata or {})}


def as_written(found: pa.Schema, schema: pa.Schema) -> pa.Schema:
    """A table's columns as whoever wrote a file knew them.

    Args:
        found: The columns of the file.
        schema: Those of the table.
    """
    absent = added(schema) - {*found.names}
    return pa.schema(field for field in schema if field.name not in absent)


def completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of a file, with null in the columns of its table that were thought of later."""
    for field in schema:
        if field.name in added(schema) - {*rows.column_names}:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select([name for name in schema.names if name in rows.column_names])


def _widened(kind: pa.DataType) -> pa.DataType:
    if kind == REAL:
        return pa.float64()
    if kind == pa.list_(REAL):
        return pa.list_(pa.float64())
    return kind
