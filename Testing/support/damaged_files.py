"""Files as a bad disk and a broken copy leave them."""

from pathlib import Path


def damage(path: Path) -> Path:
    """Fill 20 bytes near the end of a file with zeros, where compressed voxels lie."""
    data = bytearray(path.read_bytes())
    data[-40:-20] = bytes(20)
    path.write_bytes(data)
    return path


def cut(path: Path) -> Path:
    """Leave out a file's last 12 bytes: of gzip the check sum, the length and the end of the data."""
    path.write_bytes(path.read_bytes()[:-12])
    return path
