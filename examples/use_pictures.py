"""Where does the model look? Pictures with maps over them, in a page.

python examples/use_pictures.py maps.html
"""

import io
import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

import attribeam as ab

HERE = Path(__file__).parent


def main(page: str, number: int = 4) -> None:
    """Explains some of the bundled pictures; a notebook shows the result itself."""
    rows = pq.read_table(HERE / "data/shapes.parquet", columns=["image"]).slice(0, number)
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows.to_pylist()]
    result = ab.explain(
        HERE / "models/shapes-vit", pictures, ["integrated_gradients", "generic_attribution"]
    )
    result.plot().write_html(page)


if __name__ == "__main__":
    main(sys.argv[1])
