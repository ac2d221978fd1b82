"""Packaging of attribeam: one distribution, one import package, one console script.

The package is ``src/attribeam``, whose parts are links to the folders of the root: they are worked
on where they are easily found, and installed as ``attribeam.pipeline``, ``attribeam.transforms``
and so on, since names as common as theirs are others' as well.
"""

from setuptools import find_packages, setup

# boto3 is what Beam writes with, s3fs what a run is read with. Both need botocore, and aiobotocore,
# which s3fs reads with, takes few of its versions: named here, it is what pip decides on first, and
# then on a boto3 that goes with it. Without it pip begins with the newest boto3 and never ends.
S3 = ["aiobotocore>=2.19,<4", "boto3>=1.40,<2", "s3fs>=2025.3"]

# What Beam needs of Google's libraries for gs:// and to launch jobs of Dataflow. Its own extra
# (gcp) brings fifty more.
GCS = [
    "google-apitools>=0.5.31,<0.6",
    "google-auth-httplib2>=0.1,<0.3",
    "google-cloud-dataflow-client>=0.13,<0.14",
    "google-cloud-storage>=2.18.2,<4",
]
DASK = ["dask>=2025.5", "distributed>=2025.5"]

setup(
    name="attribeam",
    version="0.1.0",
    description="Corpus-scale attribution datasets for transformers: Beam in, Parquet and SQL out",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "attribeam": ["py.typed"],
        "attribeam.schemas": ["sql/*.sql", "methods.json"],
        "attribeam.analysis": ["templates/*"],
    },
    install_requires=[
        # The ModelHandler and runner details we rely on change between minor versions of Beam.
        "apache-beam>=2.77,<2.78",
        "torch>=2.6",
        "transformers>=5.20,<6",
        "datasets>=5,<6",
        "fsspec>=2024.6",
        "huggingface_hub>=2,<3",
        "jinja2>=3.1,<4",
        "pyarrow>=24,<26",
        "duckdb>=2,<3",
        "numpy>=2,<2.5",
        "pillow>=11",
        "plotly>=6,<7",
        "rich>=14,<16",
        "scipy>=1.15,<2",
        "shtab>=1.7,<2",
        "pyyaml>=6,<7",
    ],
    extras_require={
        "gcp": ["apache-beam[gcp]>=2.77,<2.78"],
        "gcs": GCS,
        "s3": S3,
        "dask": DASK,
        # Figures as SVG, PNG and PDF; it draws with the Chrome or Chromium that is there.
        "figures": ["kaleido>=1.1,<2"],
        "test": [
            *DASK,
            # And servers that speak the protocols of the stores.
            *GCS,
            "gcp-storage-emulator>=2024",
            *S3,
            "flask>=3,<4",
            "flask-cors>=5",
            "moto[s3]>=5,<6",
            "captum>=0.9,<0.10",
            "hypothesis>=6,<7",
            "kaleido>=1.1,<2",
            "markdown-it-py>=3",
            "networkx>=3",
            "playwright>=1.50,<2",
            "pytest>=8",
            "scikit-learn>=1.6,<2",
            "pytest-timeout>=2",
            "pytest-xdist>=3",
        ],
        "docs": ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1,<2"],
        "lint": [
            "import-linter>=2,<3",
            "mypy>=1.18",
            "ruff>=0.14",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["attribeam=attribeam.pipeline.__main__:main"]},
)
