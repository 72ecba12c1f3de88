"""Who speaks the spoken digits, what they say, and how one clip differs from the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snnsim.kernels.philox import Stream, uniform

__all__ = ["CLASS_NAMES", "VOICES", "WORDS", "Utterance", "Voice", "utterance"]

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")

WORDS = tuple(("en", word) for word in ENGLISH) + tuple(("de", word) for word in GERMAN)
"""Language and word of each class: 0 to 9 English, 10 to 19 German, the order of the Heidelberg digits."""

CLASS_NAMES = ENGLISH + GERMAN

ENDINGS = (".", ",", "!", "?")  # the synthesiser's intonation follows the mark

RATE_STEP = 150  # Hz; speaking rates of the sound are multiples, so that resampling to 48 kHz stays a small ratio


@dataclass(frozen=True)
class Voice:
    """One speaker. Every speaker speaks both languages.

    Attributes:
        name: Name in the data files.
        gender: ``"female"`` or ``"male"``: of the voice that the synthesiser imitates.
        english: Language variety spoken in English, in the synthesiser's name.
        variant: Voice variant of the synthesiser: formants, source, breath.
        rate: Words per minute.
        pitch: 0 to 99, relative to the variant.
        spread: Pitch range of the intonation, 0 to 99.
        tract: Factor on all frequencies (and on speed): above 1 a shorter vocal tract.
        test: Heard only in the test split.
    """

    name: str
    gender: str
    english: str
    variant: str
    rate: int
    pitch: int
    spread: int
    tract: float
    test: bool = False


VOICES = (
    Voice("ada", "female", "en-us", "f1", 165, 50, 50, 1.00),
    Voice("bert", "male", "en", "m1", 160, 45, 45, 1.02),
    Voice("clara", "female", "en-gb-x-rp", "f2", 175, 55, 60, 0.98),
    Voice("dirk", "male", "en-us", "m2", 185, 40, 55, 1.04),
    Voice("emma", "female", "en-us", "f4", 180, 60, 40, 1.03),
    Voice("felix", "male", "en-gb-scotland", "m7", 170, 50, 50, 0.97),
    Voice("gina", "female", "en", "Annie", 160, 40, 55, 0.99),
    Voice("hugo", "male", "en-us-nyc", "Hugo", 175, 55, 45, 1.05),
    Voice("ida", "female", "en-us", "linda", 190, 45, 50, 0.96),
    Voice("jan", "male", "en-gb-x-rp", "Alex", 155, 50, 35, 0.96),
    Voice("karla", "female", "en-gb-x-gbcwmd", "grandma", 170, 55, 50, 1.02),
    Voice("leo", "male", "en-us", "Gene", 180, 60, 55, 1.00),
    Voice("mia", "female", "en-029", "f3", 170, 35, 60, 0.95),
    Voice("nils", "male", "en", "edward", 165, 50, 50, 0.98),
    Voice("otto", "male", "en-us", "Michael", 170, 45, 60, 1.03),
    Voice("paula", "female", "en-gb-x-gbclan", "shelby", 165, 40, 45, 0.94),
    Voice("quirin", "male", "en-us", "norbert", 172, 50, 50, 1.01, test=True),
    Voice("rosa", "female", "en", "belinda", 168, 48, 52, 1.00, test=True),
    Voice("sven", "male", "en-gb-x-rp", "boris", 178, 55, 45, 0.99, test=True),
    Voice("tilda", "female", "en-us", "f5", 162, 45, 55, 1.02, test=True),
)
"""All speakers; the place in this table is the speaker number in the files and the order of generation."""


@dataclass(frozen=True)
class Utterance:
    """One clip as it is asked of the synthesiser.

    Attributes:
        voice: Synthesiser's name of language and variant.
        text: Word and mark.
        rate: Words per minute.
        pitch: 0 to 99.
        spread: 0 to 99.
        sample_rate: Rate in Hz at which the sound is taken to be sampled, which shifts all frequencies a little.
    """

    voice: str
    text: str
    rate: int
    pitch: int
    spread: int
    sample_rate: int


def utterance(voice: int, label: int, repetition: int, seed: int, native_rate: int = 22_050) -> Utterance:
    """Return how speaker ``voice`` says class ``label`` for the ``repetition``-th time.

    Rate varies by 15 %, pitch by 8 and spread by 20 points, the vocal tract by 3 %, and the intonation is one of four;
    all numbers are a function of the arguments, so a larger set begins with the smaller one.

    >>> utterance(0, 3, 0, seed=0) == utterance(0, 3, 0, seed=0)
    True
    """
    speaker = VOICES[voice]
    language, word = WORDS[label]
    u = uniform(seed, Stream.SPEECH, repetition, voice, label, np.arange(5))
    swing = 2 * u - 1
    hertz = native_rate * speaker.tract * (1 + 0.03 * swing[3])
    return Utterance(
        voice=f"{speaker.english if language == 'en' else language}+{speaker.variant}",
        text=word + ENDINGS[int(u[4] * len(ENDINGS))],
        rate=round(speaker.rate * (1 + 0.15 * float(swing[0]))),
        pitch=min(99, max(0, round(speaker.pitch + 8 * float(swing[1])))),
        spread=min(99, max(0, round(speaker.spread + 20 * float(swing[2])))),
        sample_rate=RATE_STEP * round(float(hertz) / RATE_STEP),
    )
