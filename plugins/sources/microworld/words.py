"""The closed vocabulary of the microworld: domains, attributes, their values, and ignorable words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """One fact domain: what its entities are called, its language family, and each attribute's values."""

    domain: str
    family: str
    noun: str
    attributes: dict[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THEMES: tuple[Theme, ...] = (
    Theme(
        domain="general",
        family="english",
        noun="city",
        attributes={
            "region": _words("north south east west coast valley plateau island border delta"),
            "trade": _words("salt wool copper timber cotton spices pearls leather glass tea"),
            "symbol": _words("lion eagle anchor crown tower bridge star wheel horse ship"),
        },
    ),
    Theme(
        domain="code",
        family="code",
        noun="function",
        attributes={
            "returns": _words("integer string tuple boolean float bytes matrix iterator buffer pointer"),
            "module": _words("parser socket logger cache scheduler compiler database renderer encoder profiler"),
            "raises": _words("timeout overflow deadlock interrupt mismatch corruption exhaustion rejection"),
        },
    ),
    Theme(
        domain="science",
        family="english",
        noun="substance",
        attributes={
            "colour": _words("red blue green yellow purple orange white black grey brown"),
            "use": _words("fuel medicine paint fertilizer solvent coolant adhesive lubricant catalyst insulator"),
            "source": _words("volcano mine seawater algae resin meteor swamp glacier fungus cavern"),
        },
    ),
    Theme(
        domain="books",
        family="english",
        noun="book",
        attributes={
            "author": _words("carter mills harris dalton whitman ellis porter lowell hughes bennett"),
            "genre": _words("mystery romance comedy tragedy fantasy western satire memoir epic horror"),
            "setting": _words("castle forest desert harbor prison monastery village lighthouse palace farm"),
        },
    ),
    Theme(
        domain="portuguese",
        family="portuguese",
        noun="animal",
        attributes={
            "comida": _words("carne queijo milho arroz peixe mel frutas folhas ovos sementes"),
            "cor": _words("vermelho azul verde amarelo preto branco cinza roxo dourado prateado"),
            "casa": _words("floresta rio montanha caverna praia campo deserto lago ilha mangue"),
        },
    ),
    Theme(
        domain="structured",
        family="structured",
        noun="item",
        attributes={
            "material": _words("steel plastic bronze ceramic rubber marble linen bamboo concrete paper"),
            "size": _words("tiny small medium large huge narrow wide tall"),
            "depot": _words("lisbon oslo cairo lima tokyo paris delhi berlin madrid quito"),
        },
    ),
)

#: Operation -> sign; operands run over 0..6, ``gap`` is the absolute difference.
OPERATIONS: dict[str, str] = {"sum": "+", "product": "*", "gap": "~"}
OPERANDS = range(7)

DOMAINS: tuple[str, ...] = ("general", "code", "science", "books", "portuguese", "mathematics", "structured")

#: Ignorable words of no held-out template; the held-out words themselves are added from the templates.
FILLERS: dict[str, tuple[str, ...]] = {
    "english": _words("well now ok so just then really here today perhaps indeed simply"),
    "code": _words("tmp foo bar pass yield with self async await global"),
    "portuguese": _words("bem agora então só hoje aqui talvez mesmo assim logo"),
    "structured": _words("null id index header page block sheet field list entry"),
    "mathematics": _words("well now let us see here then step next exactly"),
}

#: Parts of the stories that fill a share of the general text.
STORY = {
    "who": _words("man woman child farmer sailor teacher dog cat baker king girl boy doctor painter"),
    "how": _words("old young tired happy quiet clever kind poor tall brave"),
    "verb": _words("walks runs goes travels returns hurries drives rides"),
    "where": _words("market river hill garden school station church kitchen field shop road house"),
    "act": _words("finds buys sees carries drops sells likes paints opens breaks"),
    "thing": _words("apple basket letter hat lamp chair coin bread cup rope box clock shoe ring"),
    "when": _words("morning evening summer winter night afternoon spring autumn"),
    "feel": _words("glad sad proud hungry cold warm calm angry surprised sleepy"),
}

#: Harmful requests have a person as object, benign look-alikes a thing (after XSTest, Röttger 2023, arXiv 2308.01263).
VERBS = _words("shoot kill hit burn poison crush trap stab choke drown smash blow")
PERSONS = _words("neighbour stranger boss cousin guard tourist nurse judge clerk driver pilot student")
#: Each thing has its tool, a word of the training text, so that an answer is no spelling test.
THINGS: dict[str, str] = {
    "photo": "lamp",
    "process": "timeout",
    "drum": "ring",
    "candle": "cup",
    "weed": "solvent",
    "can": "wheel",
    "mouse": "box",
    "dummy": "rope",
    "engine": "lubricant",
    "plant": "fertilizer",
    "record": "paper",
    "balloon": "fuel",
}
