"""The numbers that a text says, in digits and in words. Pure.

Words are those of English, German, French, Spanish, Italian, Portuguese and Dutch. In another script a text could say
any number unseen, so that what isn't written in Latin letters counts as a number that can't be read.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

#: What each word says, without its accents. A fraction is so many percent, as in "half price". Left out is what mostly
#: says something else: articles that also mean one, "first", "second", "once", "due", "tiers".
_SAID: Final[dict[float, str]] = {
    0: "zero null nulla",
    1: "one eins",
    2: "two zwei deux dos dois duas twee twice twofold couple double doubled doubles doubling doppelt doble doppio"
    " dobro dubbel",
    3: "three drei trois tres tre drie thrice threefold triple tripled treble dreifach",
    4: "four vier quatre cuatro quattro quatro fourfold quadruple",
    5: "five funf fuenf cinq cinco cinque vijf fivefold fiver",
    6: "six sechs seis sei zes",
    7: "seven sieben sept siete sette sete zeven",
    8: "eight acht huit ocho otto oito",
    9: "nine neun neuf nueve nove negen",
    10: "ten zehn dix diez dieci dez tien tenfold tenner tenth tenths zehntel",
    11: "eleven elf onze undici",
    11.11: "ninth ninths",
    12: "twelve zwolf zwoelf douze doce dodici doze twaalf dozen dutzend douzaine docena dozzina dozijn",
    12.5: "eighth eighths achtel",
    13: "thirteen dreizehn treize trece tredici treze dertien",
    14: "fourteen vierzehn quatorze catorce quattordici catorze veertien",
    14.29: "seventh sevenths",
    15: "fifteen funfzehn fuenfzehn quinze quince quindici vijftien",
    16: "sixteen sechzehn seize dieciseis sedici dezesseis zestien",
    16.67: "sixth sixths sechstel",
    17: "seventeen siebzehn diecisiete diciassette dezessete zeventien",
    18: "eighteen achtzehn dieciocho diciotto dezoito achttien",
    19: "nineteen neunzehn diecinueve diciannove dezenove negentien",
    20: "twenty zwanzig vingt veinte venti vinte twintig fifth fifths funftel quinto quinta cinquieme",
    25: "quarter quarters fourth fourths viertel quart cuarto cuarta quarto quarta kwart",
    30: "thirty dreissig trente treinta trenta trinta dertig",
    33: "third thirds drittel tercio terzo terco derde",
    40: "forty fourty vierzig quarante cuarenta quaranta quarenta veertig",
    50: "fifty funfzig fuenfzig cinquante cincuenta cinquanta cinquenta vijftig half halves halve halved halving halb"
    " halbe halber halben halbes halfte haelfte halbpreis moitie demi demie mitad meta metade helft bogo bogof",
    60: "sixty sechzig soixante sesenta sessanta sessenta zestig",
    70: "seventy siebzig septante setenta settanta zeventig",
    80: "eighty achtzig octante huitante ochenta ottanta oitenta tachtig",
    90: "ninety neunzig nonante noventa novanta negentig",
    100: "hundred hundreds hundert cent cien ciento cento cem honderd",
    1_000: "thousand thousands grand tausend mille mil duizend",
    1_000_000: "million millions millionen millon millones milione milioni milhao milhoes miljoen",
}
_WORDS: Final = {word: value for value, words in _SAID.items() for word in words.split()}
#: A longer word that begins with one of these says the same: "quarterly", "zwanzigprozentig".
_STEMS: Final = {word: value for word, value in _WORDS.items() if len(word) >= 6}
_STEM_LENGTHS: Final = sorted({len(stem) for stem in _STEMS})
_FREE: Final = {
    "free", "freebie", "freebies", "complimentary", "gratis", "kostenlos", "kostenfrei", "umsonst", "gratuit",
    "gratuite", "gratuitement", "gratuito", "gratuita",
}  # fmt: skip
_MARKS: Final = ".,'\u2019"
_TOKEN: Final = re.compile(rf"[\w{_MARKS}]+")
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")
_DIGITS: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)


def numbers_in(text: str, *, free: float | None) -> Iterator[float | None]:
    """Yield the numbers that a text says, in its order: None for one that can't be read.

    `free` is the number that "free" says; None if it says none.
    """
    before = ""
    for found in _TOKEN.finditer(unicodedata.normalize("NFC", text)):
        token = found[0].strip(_MARKS)
        if any(character.isnumeric() for character in token):
            yield float(token.replace(",", "")) if _DIGITS.fullmatch(token) else None
            continue
        for word in _BETWEEN_WORDS.split(_without_accents(token)):
            if not word.isascii():
                yield None
            elif word in _FREE:
                if free is not None:
                    yield free
            elif (value := _value(word)) is not None and (before, word) != ("per", "cent"):
                yield value
            before = word


def _value(word: str) -> float | None:
    if word in _WORDS:
        return _WORDS[word]
    stems = (word[:length] for length in _STEM_LENGTHS if length < len(word))
    return next((_STEMS[stem] for stem in stems if stem in _STEMS), None)


def _without_accents(text: str) -> str:
    parted = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in parted if not unicodedata.combining(character))
