"""Sound files: read as (samples, channels), and written as WAV."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from staf_nerf.signals.audio import Sound, Track

STREAMED = 0x7FFFF000
"""Data sizes from here on, in bytes, are placeholders of programs that stream and do not know the size yet."""
SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


def read_sound(path: Path) -> tuple[Sound, Track]:
    """Reads a sound (samples, channels) from WAV, FLAC, OGG and other formats of libsndfile.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a sound, is cut off, has no samples, or has values that are not finite.
    """
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"the sound {path} does not exist")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        subtype = soundfile.info(path).subtype
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as a sound: {error}") from error
    sound = np.asarray(samples, dtype=np.float32)
    try:
        _refuse_cut_off(path)
        return sound, Track.of(sound, rate, subtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_cut_off(path: Path) -> None:
    """Refuses an incomplete WAV file, which libsndfile would read as a shorter sound.

    Raises:
        ValueError: If its header declares more bytes of samples than the file contains.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                available = size - file.tell()
                if length > available and length < STREAMED:
                    raise ValueError(f"the file is cut off: it contains {available} of {length} bytes of samples")
                return
            file.seek(length + length % 2, 1)


def write_sound(path: Path, sound: Sound, track: Track) -> None:
    """Writes a sound as WAV, in the sample format of the track if WAV supports it.

    Raises:
        OSError: If the file cannot be written.
    """
    import soundfile

    subtype = track.subtype if soundfile.check_format("WAV", track.subtype) else "PCM_16"
    try:
        soundfile.write(path, sound, track.rate, subtype=subtype, format="WAV")
    except soundfile.LibsndfileError as error:
        raise OSError(f"could not write {path}: {error}") from error
