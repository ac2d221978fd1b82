"""What the cards of the two bundled models say in words."""

from __future__ import annotations

from examples.bundled.card import Wording

SENTIMENT = Wording(
    corpus="sentiment",
    task="text-classification",
    title="sentiment-bert",
    summary=(
        "A small BERT that tells negative (0) from positive (1) in the synthetic reviews of\n"
        "`examples/bundled/sentiment.py`. It was made to be explained: the corpus says by construction\n"
        "which words decide each label, and negation, contrast, degree and opinions of other\n"
        "people make the label more than a count of words."
    ),
    measure=(
        "Share of reviews whose more probable label is the right one. No deciding sentence of the\n"
        "test split occurs in the training split."
    ),
    baseline="bag of words, test",
    baseline_note="The bag of words is a logistic regression on which words occur.",
    limits=(
        "It knows the templates and words of its corpus and nothing else of English; on real\n"
        "reviews its answers mean nothing. Its rationales were never shown to it."
    ),
)

AGREEMENT = Wording(
    corpus="agreement",
    task="fill-mask",
    title="agreement-bert",
    summary=(
        "A small masked language model of the synthetic sentences of `examples/bundled/agreement.py`. It\n"
        "was made to be explained: which noun decides the number of the verb is known, and so is\n"
        "which noun stands in the way (the attractor). Reflexives (`himself`) it knows from\n"
        "sentences of `examples/bundled/influence_corpus.py`."
    ),
    measure=(
        "Share of sentences in which the form of the verb that agrees with its subject is more\n"
        "probable at `[MASK]` than the other form. No sentence of the test split occurs in the\n"
        "training split. `attractor: other` are the sentences of all structures whose attractor\n"
        "has the other number than the subject, `attractor: same` those where it has the same."
    ),
    baseline="nearest noun, test",
    baseline_note="The nearest noun is the rule that the verb agrees with the last noun before it.",
    limits=(
        "It knows the templates and words of its corpora and nothing else of English. Besides\n"
        "ordinary masking it was trained on masked verbs and reflexives (half of the sentences of\n"
        "a step), so it is better at these than at other words."
    ),
)
