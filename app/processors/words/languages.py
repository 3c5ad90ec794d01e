"""Telling languages by their commonest words.

It is right for some sentences of running text in one of the languages below, and says nothing of anything else: tables,
names, a mixture, other languages.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

_READ = 20_000  # words
_LEAST = 8  # of its common words that a text has …
_SHARE = 0.15  # … and their share of all
_LEAD = 1.4  # times as many as of the next language

# The commonest function words of each, without those of one letter.
COMMON = {
    "da": "og det at en den til er som på de med han af for ikke der var mig sig men et har om vi min havde ham hun nu "
    "over da fra du ud sin dem os op man hans hvor eller hvad skal selv her alle vil blev kunne ind når være dog "
    "noget hendes jeg disse deres efter også af",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er "
    "hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis "
    "mehr durch man sein wurde wenn können diese ich wir ihr kein",
    "en": "the of and to in that is was for it with as his on be at by had not are but from or have an they which one "
    "you were her all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these may then do this shall",
    "es": "de la que el en los del se las por un para con no una su al lo como más pero sus le ya este sí porque esta "
    "entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros "
    "ese eso ante ellos esto antes algunos unos yo otro otras fue son es",
    "fr": "de la le et les des en un du une que est pour qui dans par plus pas au sur ne se ce il sont avec son sa aux "
    "ou mais comme nous vous leur on elle ils cette ces tout été être ont fait même entre sans sous après deux peut "
    "très dont où si leurs était bien aussi",
    "it": "di che la il un per in non una sono del con si da come le dei nel alla più anche al lo gli della ha ma ed "
    "delle questo se su dal essere tra è ci quando dalla i degli dello o sul nella ancora suo cui molto loro stato "
    "tutti questa era hanno fra perché dopo così",
    "nl": "de en van het een in is dat op te zijn met voor niet aan er om ook als dan maar door bij uit of naar had "
    "worden wordt heeft hij ze nog wel geen over zich deze tot wat meer kan zo hun haar dit werd die al we waar mijn "
    "onder moet zou alle na heb tegen",
    "pt": "de que do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou quando "
    "muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos seus quem nas me esse eles você essa "
    "num nem suas meu às minha numa pelos são foi",
    "sv": "och det att en som på är av för med till den har de inte om ett han men var jag sig från vi så kan när man "
    "år under eller nu vid sin efter upp hon också hade skulle ska bara mycket där mot alla blev dem detta vara här "
    "ut mig vad över henne honom dess blir denna få",
}
WORDS = {language: frozenset(words.split()) for language, words in COMMON.items()}


def language_of(words: Iterable[str]) -> str | None:
    """Return the language of words in their order (ISO 639-1), or None if it is not clearly one that is known."""
    read = Counter(word.casefold() for word in islice(words, _READ))
    found = {language: sum(read[word] for word in common) for language, common in WORDS.items()}
    first, second = sorted(found, key=lambda language: (-found[language], language))[:2]
    is_clear = found[first] >= max(_LEAST, _SHARE * read.total()) and found[first] >= _LEAD * found[second]
    return first if is_clear else None
