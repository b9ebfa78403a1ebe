"""The figures of a report as images in TensorBoard."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from PIL import Image

SUFFIX = ".report"


def write_events(images: Mapping[str, Path], folder: Path) -> Path:
    """Writes one event file with all images atomically, and removes that of an earlier report.

    Args:
        images: PNG files by tag, which are copied as they are.
        folder: the folder of the event file.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary  # with the next, takes a second to import
    from torch.utils.tensorboard import FileWriter

    earlier = set(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    with tempfile.TemporaryDirectory(prefix=".events.", dir=folder) as temporary:
        with closing(FileWriter(temporary, filename_suffix=SUFFIX)) as writer:
            for tag, path in images.items():
                with Image.open(path) as picture:
                    width, height, colours = picture.width, picture.height, len(picture.getbands())
                image = Summary.Image(
                    width=width, height=height, colorspace=colours, encoded_image_string=path.read_bytes()
                )
                writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]))
        (written,) = Path(temporary).iterdir()
        target = written.replace(folder / written.name)
    for path in earlier - {target}:
        path.unlink(missing_ok=True)
    return target
