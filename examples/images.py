"""An image pipeline: one job for an album, a child for each picture, and one that comes last.

    python images.py make album 3                       makes three pictures in album/
    beaver run -A images:app --burst                    (in this directory)
    beaver enqueue album '{"folder": "album"}'

`album` enqueues its children with `ctx.enqueue`, so they exist if and only if it completed.
`contact_sheet` comes back by `Snooze` until all thumbnails are there; it holds no worker
while it waits.  A thumbnail is written under a temporary name and renamed: an attempt that
is run again does no harm, and nobody sees half a file.

Pictures are plain PPM, so that this needs nothing but Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

from beaver import Beaver, Dead, JobContext, Snooze

app = Beaver("data")

SIDE = 32
"""Pixels of a side of the pictures that `make` makes."""
SHRINK = 4


@app.job
def album(ctx: JobContext, folder: str) -> int:
    """Cuts an album into one job a picture, and one for the whole."""
    pictures = sorted(path.name for path in Path(folder).glob("*.ppm"))
    if not pictures:
        raise Dead(f"{folder} holds no pictures")
    for name in pictures:
        ctx.enqueue(thumbnail.options(id=f"{ctx.job_id}/{name}", queue="pictures"), folder, name)
    ctx.enqueue(contact_sheet.options(id=f"{ctx.job_id}/sheet"), folder, pictures)
    return len(pictures)


@app.job(timeout="1m", max_attempts=3)
def thumbnail(folder: str, name: str) -> str:
    """Shrinks one picture."""
    width, height, pixels = read(Path(folder, name))
    small = bytearray()
    for y in range(0, height, SHRINK):
        for x in range(0, width, SHRINK):
            small += mean(pixels, width, x, y)
    target = Path(folder, "thumbs", name)
    write(target, width // SHRINK, height // SHRINK, bytes(small))
    print(f"{name}: {width} x {height} becomes {width // SHRINK} x {height // SHRINK}")
    return str(target)


@app.job(max_attempts=3)
def contact_sheet(folder: str, names: list[str]) -> str:
    """Puts all thumbnails into one picture, once they are there."""
    thumbs = [Path(folder, "thumbs", name) for name in names]
    if not all(path.exists() for path in thumbs):
        raise Snooze(0.2)
    parts = [read(path) for path in thumbs]
    width = parts[0][0]
    sheet = b"".join(pixels for _, _, pixels in parts)
    target = Path(folder, "sheet.ppm")
    write(target, width, sum(height for _, height, _ in parts), sheet)
    return f"{len(parts)} thumbnails in {target}"


def mean(pixels: bytes, width: int, left: int, top: int) -> bytes:
    """Returns the mean colour of a square."""
    square = [
        3 * (y * width + x)
        for y in range(top, top + SHRINK)
        for x in range(left, left + SHRINK)
    ]  # fmt: skip
    return bytes(sum(pixels[at + part] for at in square) // len(square) for part in range(3))


def read(path: Path) -> tuple[int, int, bytes]:
    """Reads a PPM file: width, height, and three bytes a pixel."""
    kind, size, depth, pixels = path.read_bytes().split(b"\n", 3)
    if (kind, depth) != (b"P6", b"255"):
        raise Dead(f"{path} is no picture of ours")
    width, height = map(int, size.split())
    return width, height, pixels


def write(path: Path, width: int, height: int, pixels: bytes) -> None:
    """Writes a PPM file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels)
    temporary.replace(path)


def main(arguments: list[str]) -> int:
    """Makes pictures to play with."""
    match arguments:
        case ["make", folder, count]:
            for number in range(int(count)):
                pixel = bytes((40 * number % 256, 128, 255 - 40 * number % 256))
                write(Path(folder, f"{number:03d}.ppm"), SIDE, SIDE, pixel * SIDE * SIDE)
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
