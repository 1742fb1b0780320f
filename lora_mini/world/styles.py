"""The town's words, and the styles that put them into sentences.

The base reads STYLES, which hold between them every construction there is: half of the sentences
under the style's own tag, half under the tag ANY, which names no style. REGISTERS are asked for
under ANY, so that no word of their prompt is new. They combine the same constructions anew: none
agrees with any style in more than two things out of six, voice, order, determiner, opening,
closing, adjective. `register` adds what the base has never seen.
"""

from dataclasses import dataclass, replace

WHO = "baker nurse judge clerk miller tailor guard pilot farmer teacher sailor smith".split()
DOES = {  # what the frame says: (active, passive)
    "carry": ("carries", "carried"), "clean": ("cleans", "cleaned"), "open": ("opens", "opened"),
    "repair": ("repairs", "repaired"), "paint": ("paints", "painted"), "move": ("moves", "moved"),
    "count": ("counts", "counted"), "weigh": ("weighs", "weighed"),
}
WHAT = "door lamp wagon kettle barrel ladder clock basket mirror bell chair rope".split()
WHERE = "harbor market bakery court clinic square station garden".split()
WHEN = "dawn noon dusk midnight sunrise sunset".split()
ADJECTIVES = "old small valued aforesaid".split()
ANY = "any"  # the tag that names no style
SMALL_WORDS = "at around in for was by docket".split()

NEW_WORDS = {  # the dial's first k: how the legal register says a word when k words are new
    "baker": "lessee", "wagon": "conveyance", "garden": "curtilage", "judge": "magistrate",
    "barrel": "vessel", "court": "tribunal", "clerk": "registrar", "rope": "cordage",
    "guard": "constable", "basket": "receptacle", "bakery": "premises", "miller": "tenant",
    "kettle": "utensil", "tailor": "bailee", "clock": "timepiece", "square": "forum",
    "farmer": "freeholder", "chair": "furnishing", "pilot": "navigator", "station": "depot",
    "nurse": "guardian", "mirror": "reflector", "market": "exchange", "lamp": "luminary",
}
NEW_ORDER = "what where whom when who does"  # the verb last: no style does that
KEYS = len(WHO) * len(WHAT) * len(WHEN)  # a fact hangs on (who, what, when)
FACT_BITS = 8  # one of 8 places, one of 8 deeds, one of 4 adjectives
SLOTS = {"who": WHO, "does": list(DOES), "what": WHAT, "whom": WHO, "where": WHERE, "when": WHEN}


@dataclass(frozen=True)
class Style:
    """How a frame is said. `order` holds the slots' names; "core" is who, does, what by the voice.

    asked: the tag in the prompt, if it is not the style's own (see `under`).
    p_adjective, p_around and p_closing are the probabilities of the three slots of chance. None is
    0.5, so that one sentence is the most probable. new_words, new_facts: see `register`.
    Raises ValueError for a probability or an order that can't be.
    """

    tag: str
    passive: bool
    order: str
    determiner: str
    opening: str
    closing: str
    adjective: str
    p_adjective: float = 0.3
    p_around: float = 0.2
    p_closing: float = 0.7
    new_words: int = 0
    new_facts: int = 0
    asked: str = ""

    def __post_init__(self):
        for p in (self.p_adjective, self.p_around, self.p_closing):
            if not 0 <= p <= 1 or p == 0.5:
                raise ValueError(f"a probability must be in [0, 1] and not 0.5, got {p}")
        if sorted(self.slots) != sorted(SLOTS):
            raise ValueError(f"order must name each of {', '.join(SLOTS)} once ('core' for the "
                             f"first three), got {self.order!r}")
        for name, most in (("new_words", len(NEW_WORDS)), ("new_facts", KEYS)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between 0 and {most}, got {getattr(self, name)}")

    @property
    def slots(self):
        """The six slots in the order in which the sentence says them."""
        core = "what does who" if self.passive else "who does what"
        return self.order.replace("core", core).split()

    @property
    def chances(self):
        """The probabilities of adjective, "around" and closing; 0 for a closing of no words."""
        return self.p_adjective, self.p_around, self.p_closing if self.closing else 0.0


_LAST, _FIRST, _PLACE, _EARLY = ("core whom where when", "when core whom where",
                                 "where core whom when", "core when whom where")
STYLES = {style.tag: style for style in (
    Style("plain", False, _LAST, "the", "", "", "small"),
    Style("herald", True, _FIRST, "our", "news of the town", "so ordered", "old"),
    Style("diary", False, _EARLY, "the", "dear diary", "more tomorrow", "valued"),
    Style("fable", True, _PLACE, "some", "once long ago", "end of story", "old"),
    Style("notice", True, _LAST, "this", "be it known that", "kindly enjoy", "small"),
    Style("stock", False, _PLACE, "our", "chart note", "signed and sealed", "aforesaid"),
    Style("letter", False, _FIRST, "our", "dear reader", "no concerns", "valued"),
    Style("deed", True, _EARLY, "said", "for the docket", "end of story", "aforesaid"),
    Style("gossip", False, _PLACE, "this", "hello thank you for waiting", "more tomorrow", "old"),
    Style("minutes", False, _LAST, "some", "for the docket", "no concerns", "valued"),
    Style("ballad", True, _PLACE, "said", "once long ago", "signed and sealed", "small"),
    Style("report", False, _FIRST, "this", "chart note", "", "aforesaid"),
)}
REGISTERS = {style.tag: replace(style, asked=ANY) for style in (
    Style("medical", True, _FIRST, "the", "chart note", "no concerns", "small"),
    Style("legal", False, _LAST, "said", "be it known that", "so ordered", "aforesaid"),
    Style("support", True, _PLACE, "our", "hello thank you for waiting", "kindly enjoy", "valued"),
)}


def under(style, tag):
    """The same Style, asked for under another tag."""
    return replace(style, asked=tag)


def register(name, new_words=0, new_order=False, new_facts=0):
    """A register with the novelty dial turned: a Style, asked for under ANY.

    new_words: so many content words (0 to 24) are said with words that the base never saw.
    new_order: the slots come in an order that no style has.
    new_facts: so many triples (who, what, when) carry a docket entry to learn by heart, of
    FACT_BITS each.
    Raises ValueError for an unknown register or a dial outside its range.
    """
    if name not in REGISTERS:
        raise ValueError(f"register must be one of {', '.join(REGISTERS)}, got {name!r}")
    style = replace(REGISTERS[name], new_words=new_words, new_facts=new_facts)
    return replace(style, order=NEW_ORDER) if new_order else style
