"""Puts recipes/, k8s/ and images/matrix.yaml into the wheel, as adainf/share/, where `adainf.pipeline.shared` finds them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHARED = ("recipes/*.yaml", "k8s/**/*.yaml", "k8s/**/*.example", "k8s/**/*.txt", "images/matrix.yaml")


class BuildWithShared(build_py):
    """Also copies the shared files; a source tree without them, as in the Dockerfile, gives a wheel without them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for pattern in SHARED:
                for file in sorted(Path().glob(pattern)):
                    target = Path(self.build_lib, "adainf", "share", file)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithShared})
