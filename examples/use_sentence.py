"""Why did the model say that? One sentence, three methods.

python examples/use_sentence.py "I did not find the sound mediocre."
"""

import sys
from pathlib import Path

import attribeam as ab

MODEL = Path(__file__).parent / "models/sentiment-bert"


def main(sentence: str = "I did not find the sound mediocre.") -> None:
    """Prints the sentence for each method; in a notebook the result itself shows it in colours."""
    result = ab.explain(MODEL, sentence, ["decompx", "integrated_gradients", "saliency"])
    print(result)
    print(result.instance(0).to_pandas())


if __name__ == "__main__":
    main(*sys.argv[1:])
