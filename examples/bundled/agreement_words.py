"""Word lists of the agreement corpus, the most frequent words of each list first."""

from __future__ import annotations

from examples.bundled.wordlists import listed

# Every pair below is (singular, plural), verbs included: "the key falls", "the keys fall".
Forms = tuple[str, str]


def _regular(words: str) -> tuple[Forms, ...]:
    return tuple((word, word + "s") for word in listed(words))


_IRREGULAR_PEOPLE: tuple[Forms, ...] = (
    ("child", "children"),
    ("woman", "women"),
    ("man", "men"),
    ("witness", "witnesses"),
    ("secretary", "secretaries"),
    ("actress", "actresses"),
    ("policeman", "policemen"),
    ("thief", "thieves"),
    ("boss", "bosses"),
    ("duchess", "duchesses"),
    ("midwife", "midwives"),
    ("hostess", "hostesses"),
)
_IRREGULAR_THINGS: tuple[Forms, ...] = (
    ("box", "boxes"),
    ("bus", "buses"),
    ("knife", "knives"),
    ("shelf", "shelves"),
    ("dress", "dresses"),
    ("diary", "diaries"),
    ("compass", "compasses"),
    ("scarf", "scarves"),
    ("harness", "harnesses"),
    ("canvas", "canvases"),
    ("mattress", "mattresses"),
    ("torch", "torches"),
)


def _woven(regular: tuple[Forms, ...], irregular: tuple[Forms, ...]) -> tuple[Forms, ...]:
    """Put an irregular word after every third regular one, so that some are frequent."""
    woven: list[Forms] = []
    for rank, forms in enumerate(regular):
        woven.append(forms)
        if rank % 3 == 2 and rank // 3 < len(irregular):
            woven.append(irregular[rank // 3])
    return tuple(woven)


PEOPLE = _woven(
    _regular(
        "teacher pilot farmer doctor singer neighbour student painter guard nurse lawyer baker "
        "sailor gardener judge mechanic dentist musician tailor plumber waiter soldier writer "
        "engineer librarian sculptor apprentice journalist carpenter astronomer ambassador "
        "blacksmith choreographer archaeologist"
    ),
    _IRREGULAR_PEOPLE,
)
THINGS = _woven(
    _regular(
        "key letter lamp clock bottle painting cabinet mirror basket ladder suitcase candle "
        "bicycle curtain bridge statue wheel engine window carpet umbrella photograph wardrobe "
        "chimney teapot manuscript lantern telescope chandelier thermometer harpsichord "
        "wheelbarrow encyclopaedia"
    ),
    _IRREGULAR_THINGS,
)

PERSON_ADJECTIVES = listed(
    "old young tall new clever polite foreign local elderly cheerful bearded experienced"
)
THING_ADJECTIVES = listed(
    "old new small large red wooden green heavy broken antique colourful ornamental"
)
DETERMINERS = ("the", "the", "the", "my", "our", "their")
PLACES = ("near", "behind", "beside", "next to", "with", "opposite", "in front of", "close to")

# Verbs inside relative clauses: singular, plural and past form.
PERSON_TO_PERSON = (
    ("knows", "know", "knew"),
    ("helps", "help", "helped"),
    ("likes", "like", "liked"),
    ("admires", "admire", "admired"),
    ("watches", "watch", "watched"),
    ("follows", "follow", "followed"),
    ("trusts", "trust", "trusted"),
    ("avoids", "avoid", "avoided"),
    ("remembers", "remember", "remembered"),
    ("envies", "envy", "envied"),
)
PERSON_TO_THING = (
    ("likes", "like", "liked"),
    ("needs", "need", "needed"),
    ("owns", "own", "owned"),
    ("paints", "paint", "painted"),
    ("uses", "use", "used"),
    ("cleans", "clean", "cleaned"),
    ("repairs", "repair", "repaired"),
    ("sells", "sell", "sold"),
    ("moves", "move", "moved"),
    ("borrows", "borrow", "borrowed"),
)
SAYING = (
    ("says", "say", "said"),
    ("thinks", "think", "thought"),
    ("knows", "know", "knew"),
    ("believes", "believe", "believed"),
    ("claims", "claim", "claimed"),
    ("hopes", "hope", "hoped"),
    ("insists", "insist", "insisted"),
    ("suspects", "suspect", "suspected"),
)

# The verbs to be predicted, by what may follow them.
COPULAS: tuple[Forms, ...] = (("is", "are"), ("was", "were"), ("looks", "look"), ("seems", "seem"))
PERFECT: Forms = ("has", "have")
PERSON_VERBS: tuple[Forms, ...] = (
    ("works", "work"),
    ("waits", "wait"),
    ("sings", "sing"),
    ("sleeps", "sleep"),
    ("laughs", "laugh"),
    ("smiles", "smile"),
    ("walks", "walk"),
    ("swims", "swim"),
    ("complains", "complain"),
    ("dances", "dance"),
)
THING_VERBS: tuple[Forms, ...] = (
    ("stands", "stand"),
    ("falls", "fall"),
    ("breaks", "break"),
    ("moves", "move"),
    ("rattles", "rattle"),
    ("vanishes", "vanish"),
    ("gleams", "gleam"),
    ("leaks", "leak"),
)

PERSON_STATES = listed("tired happy busy late famous hungry ready proud absent nervous")
THING_STATES = listed("expensive old new dusty heavy missing beautiful wet rusty fragile")
PERSON_EVENTS = listed("arrived left changed returned disappeared vanished")
THING_EVENTS = listed("changed arrived disappeared vanished improved fallen")
ADVERBS = listed("often usually always never rarely sometimes")
OPENINGS = ("today", "again", "as a rule", "at last", "in winter", "after lunch")
CLOSINGS = (
    "in the garden",
    "at the station",
    "near the river",
    "after dinner",
    "at night",
    "in the rain",
    "every morning",
    "behind the theatre",
    "on the balcony",
    "without a reason",
)
