"""All is in pyproject.toml, but that the shipped configs lie in configs/ here and in bpgen/configs of a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["bpgen*"]),
        *find_packages("plugins", include=["bpgen_rules*"]),
        *("bpgen.configs", "bpgen.configs.studies"),
    ],
    package_dir={
        "bpgen_rules": "plugins/bpgen_rules",
        "bpgen.configs": "configs",
        "bpgen.configs.studies": "configs/studies",
    },
)
