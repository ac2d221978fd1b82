"""A small CLIP of pictures of shapes and their captions: its parts, and what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViTForImageClassification,
)

from examples.bundled.fitting import Objective
from examples.bundled.shapes import COLOURS, GROUNDS, SHAPES, SIDE, TEXTURES, Scene, article
from examples.bundled.shapes_fitting import normalised, patch_loss, pixels_of, shapes_of_patches

PROMPTS = tuple(f"a photo of a {shape}" for shape in SHAPES)
_SPECIALS = ("<pad>", "<unk>", "<start>", "<end>")
_WORDS = ("a", "an", "and", "of", "on", "photo", *SHAPES, *COLOURS, *GROUNDS, *TEXTURES)
_LONGEST = 16
_BATCH = 120


@dataclass(frozen=True)
class ClipRecipe:
    """Sizes of a CLIP beside its image encoder, and of its training.

    Attributes:
        pictures: Size of the generated corpus, of which four fifths are for training.
        epochs: Passes over the training split.
        layers: Transformer layers of the text encoder.
        heads: Its attention heads of a layer.
        hidden: Its width.
        feed_forward: Width inside its feed-forward blocks.
        projection: Width of the space that pictures and texts are compared in.
        batch: Pictures of a step, and texts.
        learning_rate: Peak of a linear warm-up (a tenth of the steps) and a linear decay.
        memory: Decay of Adam's average of squared gradients.
    """

    pictures: int
    epochs: int
    layers: int = 2
    heads: int = 4
    hidden: int = 64
    feed_forward: int = 128
    projection: int = 48
    batch: int = 64
    learning_rate: float = 1e-3
    memory: float = 0.98

    def model(
        self, encoder: ViTForImageClassification, words: PreTrainedTokenizerFast
    ) -> CLIPModel:
        """A new model, whose image encoder begins as that of a classifier."""
        own = encoder.config
        text = {
            "vocab_size": len(words),
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": _LONGEST,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "projection_dim": self.projection,
        }
        vision = {
            "hidden_size": own.hidden_size,
            "intermediate_size": own.intermediate_size,
            "num_hidden_layers": own.num_hidden_layers,
            "num_attention_heads": own.num_attention_heads,
            "image_size": own.image_size,
            "patch_size": own.patch_size,
            "hidden_act": own.hidden_act,
            "projection_dim": self.projection,
        }
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=self.projection)
        model = CLIPModel(config)
        _begin_as(model, encoder)
        return model


# Weights of a ViT by those of CLIP's image encoder.
_NAMES = {
    "encoder.layers.": "layers.",
    "self_attn.out_proj": "attention.o_proj",
    "self_attn.": "attention.",
    "layer_norm1": "layernorm_before",
    "layer_norm2": "layernorm_after",
    "post_layernorm": "layernorm",
}


def _begin_as(model: CLIPModel, encoder: ViTForImageClassification) -> None:
    """Copy a ViT's weights into the image encoder.

    CLIP has no bias of patches, which goes into their positions, and a norm before the first layer,
    which is to leave the size of embeddings as it is.
    """
    given = dict(encoder.vit.named_parameters())
    positions = given["embeddings.position_embeddings"][0].clone()
    positions[1:] += given["embeddings.patch_embeddings.projection.bias"]
    vision = model.vision_model
    with torch.no_grad():
        vision.embeddings.class_embedding.copy_(given["embeddings.cls_token"][0, 0])
        vision.embeddings.position_embedding.weight.copy_(positions)
        vision.embeddings.patch_embedding.weight.copy_(
            given["embeddings.patch_embeddings.projection.weight"]
        )
        vision.pre_layrnorm.weight.fill_(float(positions.std()))
        for name, weight in vision.named_parameters():
            if "embedding" not in name and "pre_layrnorm" not in name:
                weight.copy_(given[_name_in_vit(name)])


def _name_in_vit(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the corpus's words, each a token, between a start and an end."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys((*_SPECIALS, *_WORDS)))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer, words.pre_tokenizer = Lowercase(), WhitespaceSplit()
    words.add_special_tokens(list(_SPECIALS))
    words.post_processor = TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(name, vocabulary[name]) for name in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=_LONGEST,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
    )


def clip_processor() -> CLIPImageProcessor:
    """What makes the model's numbers of a picture: -1 for black to 1 for white."""
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessor(
        size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


class Both:
    """A tokenizer and a processor, which lie in one folder."""

    def __init__(self, words: PreTrainedTokenizerFast, pictures: CLIPImageProcessor) -> None:
        self.words, self.pictures = words, pictures

    def save_pretrained(self, save_directory: Path) -> None:
        """Write the files of both."""
        self.words.save_pretrained(save_directory)
        self.pictures.save_pretrained(save_directory)


# What it is trained on ------------------------------------------------------------------------


def texts_of(scene: Scene) -> list[list[str]]:
    """Texts that are true of a picture: its caption, and of each thing three shorter ones."""
    things = [
        [
            f"{article(thing.colour)} {thing.colour} {thing.shape}",
            f"a {thing.shape}",
            f"a photo of a {thing.shape}",
        ]
        for thing in scene.things
    ]
    return [[scene.caption], *things]


class Paired(nn.Module):
    """A CLIP with a second head that says of each patch which shape is there, if any.

    As of the classifier (``shapes_fitting.Taught``), it is thrown away after training.
    """

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model
        width = model.vision_model.post_layernorm.normalized_shape[0]
        self.of_patches = nn.Linear(width, 1 + len(SHAPES))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pictures and texts, [B, texts], and of patches, [B, patches, 1 + shapes]."""
        found = self.model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
        states = found.vision_model_output.last_hidden_state
        of_patches = self.of_patches(self.model.vision_model.post_layernorm(states[:, 1:]))
        return found.logits_per_image, of_patches


def pairing(paired: Paired, words: PreTrainedTokenizerFast, scenes: Sequence[Scene]) -> Objective:
    """Make the objective: which texts of a batch are true of a picture, and the other way round.

    Half of the texts are whole captions. A short one may be true of several pictures, which then
    share it.
    """
    patch = paired.model.vision_model.embeddings.patch_size
    pixels, patches = pixels_of(scenes), shapes_of_patches(scenes, patch)
    texts = [texts_of(scene) for scene in scenes]
    true = [{text for group in groups for text in group} for groups in texts]

    def text_of(at: int, whole: float, choice: float) -> str:
        caption, *things = texts[at]
        short = [text for thing in things for text in thing]
        return caption[0] if whole < 0.5 else short[int(choice * len(short))]

    def loss_of(chosen: Tensor) -> Tensor:
        drawn = torch.rand(2, len(chosen)).tolist()
        given = [text_of(*each) for each in zip(chosen.tolist(), *drawn, strict=True)]
        fits = torch.tensor([[float(text in true[at]) for text in given] for at in chosen.tolist()])
        encoded = words(given, padding=True, return_tensors="pt")
        logits, of_patches = paired(
            normalised(pixels[chosen]), encoded["input_ids"], encoded["attention_mask"]
        )
        by_picture = cross_entropy(logits, fits / fits.sum(1, keepdim=True))
        by_text = cross_entropy(logits.T, fits.T / fits.T.sum(1, keepdim=True))
        return (by_picture + by_text) / 2 + patch_loss(of_patches, patches[chosen])

    return Objective(torch.full((len(scenes),), patches.shape[1]), loss_of)


# How often it is right ------------------------------------------------------------------------


def text_logits(
    model: CLIPModel, words: PreTrainedTokenizerFast, scenes: Sequence[Scene], texts: Sequence[str]
) -> Tensor:
    """Logits of texts as classes of pictures, [scenes, texts]."""
    model.train(False)
    encoded = words(list(texts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return torch.cat(
            [
                model(**encoded, pixel_values=batch).logits_per_image
                for batch in normalised(pixels_of(scenes)).split(_BATCH)
            ]
        )


def caption_accuracy(
    model: CLIPModel, words: PreTrainedTokenizerFast, scenes: Sequence[Scene], of: int = 32
) -> tuple[float, int]:
    """Share of pictures whose own caption is the most probable of so many, and their number."""
    hits: list[bool] = []
    for start in range(0, len(scenes) - of + 1, of):
        batch = scenes[start : start + of]
        captions = [scene.caption for scene in batch]
        found = text_logits(model, words, batch, captions).argmax(1).tolist()
        hits += [captions[at] == caption for at, caption in zip(found, captions, strict=True)]
    return sum(hits) / len(hits), len(hits)
