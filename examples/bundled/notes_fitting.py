"""The model of the corpus of notes, and what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.bundled.card import Accuracies
from examples.bundled.fitting import Objective
from examples.bundled.notes import Note, words
from examples.bundled.scoring import accuracy_by

_SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
_IGNORED = -100


@dataclass(frozen=True)
class NotesRecipe:
    """Sizes of the model and of its training.

    Attributes:
        notes: Size of the generated corpus, of which four fifths are for training.
        repeated: Random sequences that are said twice, for each prompt of a step: what is looked up
            is learnt from them.
        epochs: Passes over the training split.
        layers: Transformer layers.
        heads: Attention heads of a layer.
        groups: Keys and values of a layer, each shared by as many heads.
        hidden: Width of the model.
        feed_forward: Width inside the feed-forward blocks.
        max_length: Tokens that a text may have.
        batch: Prompts of a step.
        learning_rate: Peak of a linear warm-up (a tenth of the steps) and a linear decay.
        memory: Decay of Adam's average of squared gradients.
        initial_range: Standard deviation of the initial weights.
    """

    notes: int
    epochs: int
    repeated: float = 0.5
    layers: int = 3
    heads: int = 4
    groups: int = 2
    hidden: int = 64
    feed_forward: int = 128
    max_length: int = 64
    batch: int = 32
    learning_rate: float = 3e-3
    memory: float = 0.99
    initial_range: float = 0.05

    def model(self, words_of: PreTrainedTokenizerFast) -> LlamaForCausalLM:
        """A new model."""
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words_of),
                hidden_size=self.hidden,
                intermediate_size=self.feed_forward,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                num_key_value_heads=self.groups,
                max_position_embeddings=self.max_length,
                initializer_range=self.initial_range,
                tie_word_embeddings=True,
                pad_token_id=words_of.pad_token_id,
                bos_token_id=words_of.bos_token_id,
                eos_token_id=words_of.eos_token_id,
            )
        )


def tokenizer(max_length: int = 64) -> PreTrainedTokenizerFast:
    """A tokenizer of the corpus's words; a text begins with ``<s>``."""
    vocabulary = {word: number for number, word in enumerate((*_SPECIALS, *words()))}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
    )


def continuing(
    model: LlamaForCausalLM,
    words_of: PreTrainedTokenizerFast,
    notes: Sequence[Note],
    repeated: float,
) -> Objective:
    """Make the objective: cross-entropy of each next token.

    Beside the prompts of a step, random sequences are said twice; of these the second saying
    counts.
    """
    end = int(words_of.eos_token_id)
    texts = words_of([note.text for note in notes])["input_ids"]
    rows = [torch.tensor([*ids, end]) for ids in texts]

    def loss_of(chosen: Tensor) -> Tensor:
        picked = [rows[position] for position in chosen.tolist()]
        told = [row.clone() for row in picked]
        for _ in range(round(repeated * len(picked))):
            length = int(torch.randint(4, 12, ()))
            said = torch.randint(len(_SPECIALS), len(words_of), (length,))
            picked.append(torch.cat([torch.tensor([1]), said, said]))
            told.append(torch.cat([torch.full((length + 1,), _IGNORED), said]))
        ids = pad_sequence(picked, batch_first=True, padding_value=0)
        labels = pad_sequence(told, batch_first=True, padding_value=_IGNORED)
        # Padding stands at the end, where nothing sees it.
        loss: Tensor = model(ids, labels=labels).loss
        return loss

    return Objective(torch.tensor([len(row) for row in rows]), loss_of)


@torch.no_grad()
def note_accuracies(
    model: LlamaForCausalLM, words_of: PreTrainedTokenizerFast, notes: Sequence[Note]
) -> Accuracies:
    """How often what follows is likelier than its foil, where the two first part."""
    hits = []
    for note in notes:
        ids = words_of(note.prompt)["input_ids"]
        good, bad = (
            words_of(text, add_special_tokens=False)["input_ids"][0]
            for text in (note.continuation, note.foil)
        )
        logits = model(torch.tensor([ids])).logits[0, -1]
        hits.append(bool(logits[good] > logits[bad]))
    return accuracy_by((note.subset for note in notes), hits)
